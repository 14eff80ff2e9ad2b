"""Streaming resampling with soxr, with an exact output length. Source: libsoxr "HQ", linear phase, its delay compensated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE, resampled_length

# K channels, T samples
Block = NDArray[np.float32]


class Resampler:
    """Float32 (samples, channels) blocks at one rate -> blocks at another, whose lengths add up to `resampled_length` of
    the input's.

    Args:
        source_rate, target_rate: Hz.
        num_channels: K.
    """

    def __init__(self, source_rate: int, num_channels: int, target_rate: int = MODEL_SAMPLE_RATE) -> None:
        self._rates, self._num_channels = (source_rate, target_rate), num_channels
        self._stream = None
        if source_rate != target_rate:
            self._stream = soxr.ResampleStream(source_rate, target_rate, num_channels, dtype="float32", quality="HQ")
        self._num_in = self._num_out = 0

    def push(self, block_TK: Block) -> Block:
        """What is known of the output by now; may be empty."""
        if self._stream is None:
            return block_TK
        self._num_in += len(block_TK)
        out: Block = self._stream.resample_chunk(block_TK)
        self._num_out += len(out)
        return out

    def finish(self) -> Block:
        """The rest."""
        if self._stream is None:
            return np.zeros((0, self._num_channels), np.float32)
        tail = self._stream.resample_chunk(np.zeros((0, self._num_channels), np.float32), last=True)
        missing = max(0, resampled_length(self._num_in, *self._rates) - self._num_out)
        padded = np.zeros((missing, self._num_channels), np.float32)
        count = min(len(tail), missing)
        padded[:count] = tail[:count]
        return padded


def resample(blocks_TK: Iterator[Block], source_rate: int, num_channels: int) -> Iterator[Block]:
    """Blocks at `source_rate` -> blocks at 16 kHz, see `Resampler`; none is empty."""
    resampler = Resampler(source_rate, num_channels)
    for block in blocks_TK:
        if len(out := resampler.push(block)):
            yield out
    if len(tail := resampler.finish()):
        yield tail
