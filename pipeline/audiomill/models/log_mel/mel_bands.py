"""How many bands, and how many samples from one frame to the next."""

from __future__ import annotations

MELS, HOP = 80, 160
