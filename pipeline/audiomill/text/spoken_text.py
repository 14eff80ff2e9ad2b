"""A text and its language."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """What a clip says, and in which language, where that is known."""

    text: str
    language: str | None
