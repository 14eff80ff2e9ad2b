"""Moonshine's convolutions over the waveform."""

from __future__ import annotations

CONVOLUTIONS = ((127, 64), (7, 3), (3, 2))
"""Kernel and stride of each."""
MOONSHINE_HOP = 64 * 3 * 2
"""Samples from one frame to the next."""
MIN_SAMPLES = 895
"""What one frame sees."""
