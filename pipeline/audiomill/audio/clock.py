"""Seconds, samples and frames. The only place that rounds.

Inside the program times are integer samples at the model's rate; only tables and people see seconds.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

BYTES_PER_SAMPLE = 4
"""Of float32."""
MODEL_SAMPLE_RATE = 16_000
"""Hz. Every model family we run (Whisper, wav2vec2 and its kin, silero-vad) was trained at this rate."""


def samples_from_seconds(seconds: float, sample_rate: int = MODEL_SAMPLE_RATE) -> int:
    """Nearest whole sample (halves go up)."""
    return int(seconds * sample_rate + 0.5)


def seconds_from_samples(num_samples: int | Fraction, sample_rate: int = MODEL_SAMPLE_RATE) -> float:
    """Exact quotient as float64."""
    return float(num_samples / sample_rate)


def resampled_length(num_samples: int, source_rate: int, target_rate: int = MODEL_SAMPLE_RATE) -> int:
    """Samples at `target_rate` that cover `num_samples` at `source_rate`: the nearest whole number.

    >>> resampled_length(44_100, 44_100)
    16000
    """
    return (2 * num_samples * target_rate + source_rate) // (2 * source_rate)


class Form(NamedTuple):
    """What a model hears, other than 16 kHz, one channel and 16 bits. `rate`: Hz; `num_channels`: 1 or 2."""

    rate: int
    num_channels: int

    @property
    def bytes_per_second(self) -> int:
        """Float32."""
        return self.rate * self.num_channels * BYTES_PER_SAMPLE

    def position(self, sample: int) -> int:
        """The sample of the form that stands where a sample at 16 kHz stands."""
        return resampled_length(sample, MODEL_SAMPLE_RATE, self.rate)
