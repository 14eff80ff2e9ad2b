"""A recording as a stream hears it: chunks with context before each, and what is waited for behind it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import samples_from_seconds

STREAM = "stream"
"""Kind of cutting rules."""


class Span(NamedTuple):
    """`[start, stop)` with `left` and `right` samples of context around it."""

    start: int
    stop: int
    left: int = 0
    right: int = 0


class StreamChunks:
    """See `audiomill.audio.cutting.segmenter.Segmenter`.

    Args:
        chunk, left, right: samples of a chunk, before it and behind it.
    """

    def __init__(self, chunk: int, left: int, right: int) -> None:
        self._chunk, self._left, self._right = chunk, left, right
        self._num_samples, self._start = 0, 0

    @property
    def keep_from(self) -> int:
        return max(0, self._start - self._left)

    def push(self, pcm_T: NDArray[np.int16]) -> list[Span]:
        self._num_samples += len(pcm_T)
        spans: list[Span] = []
        while self._num_samples >= self._start + self._chunk + self._right:
            spans.append(self._span(self._start + self._chunk, self._right))
        return spans

    def finish(self) -> list[Span]:
        spans: list[Span] = []
        while self._start < self._num_samples:
            stop = min(self._start + self._chunk, self._num_samples)
            spans.append(self._span(stop, min(self._right, self._num_samples - stop)))
        return spans

    def _span(self, stop: int, right: int) -> Span:
        span = Span(self._start, stop, min(self._left, self._start), right)
        self._start = stop
        return span


def in_steps(seconds: float, step: int) -> int:
    """Whole steps of a model, at least one where there is anything."""
    samples = samples_from_seconds(seconds)
    return max(step, round(samples / step) * step) if samples else 0
