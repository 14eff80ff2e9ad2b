"""Streaming resampling to the model's rate with soxr, with an exact output length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE, resampled_length

# K channels, T samples
Block = NDArray[np.float32]


def resample(blocks_TK: Iterator[Block], source_rate: int, num_channels: int) -> Iterator[Block]:
    """Blocks at `source_rate` -> blocks at 16 kHz.

    Args:
        blocks_TK: float32 (samples, channels) blocks.
        source_rate: Hz.
        num_channels: K.

    Yields:
        Float32 blocks whose lengths add up to `resampled_length` of the input's.

    Source: libsoxr "HQ", linear phase, its delay compensated.
    """
    if source_rate == MODEL_SAMPLE_RATE:
        yield from blocks_TK
        return
    stream = soxr.ResampleStream(source_rate, MODEL_SAMPLE_RATE, num_channels, dtype="float32", quality="HQ")
    num_in = num_out = 0
    for block in blocks_TK:
        num_in += len(block)
        out = stream.resample_chunk(block)
        num_out += len(out)
        if len(out):
            yield out
    tail = stream.resample_chunk(np.zeros((0, num_channels), np.float32), last=True)
    missing = resampled_length(num_in, source_rate) - num_out
    padded = np.zeros((max(0, missing), num_channels), np.float32)
    count = min(len(tail), max(0, missing))
    padded[:count] = tail[:count]
    if len(padded):
        yield padded
