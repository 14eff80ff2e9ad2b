"""An open recording, whoever decodes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from audiomill.errors import RecordingRejected

BLOCK_FRAMES = 1 << 16
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE, MAX_CHANNELS = 1_000, 768_000, 256


@dataclass
class Audio:
    """An open recording. `num_announced`: samples per channel by header, None if it says nothing."""

    sample_rate: int
    num_channels: int
    num_announced: int | None
    blocks_TK: Iterator[NDArray[np.float32]]
    is_exact: bool
    """Whether the announced length is exact to the sample; lossy codecs pad and trim by some frames."""
    problems: list[str] = field(default_factory=list)
    """What went wrong while decoding, filled as blocks are read."""
    track: int | None = None
    """Of a container with several audio tracks, from 1."""
    left_out: str | None = None
    """Sound of the file that was not asked for."""
    num_lost: int = 0
    """Frames that could not be decoded and are given as silence, so that what follows keeps its time."""
    notes: list[str] = field(default_factory=list)
    """What is unusual and harmless, filled as blocks are read."""


def check_header(sample_rate: int, num_channels: int) -> None:
    """Raises Rejected when a header is outside what audio can be."""
    if not (MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE and 1 <= num_channels <= MAX_CHANNELS):
        raise RecordingRejected(
            "decode",
            "invalid_header",
            f"expected {MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE} Hz and 1..{MAX_CHANNELS} channels, got {sample_rate} Hz and {num_channels}",
        )
