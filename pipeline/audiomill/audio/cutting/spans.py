"""Stretches of a recording, in samples."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """`[start, stop)` with `left` and `right` samples of context around it."""

    start: int
    stop: int
    left: int = 0
    right: int = 0
