"""Seconds, samples and frames. The only place that rounds.

Inside the program times are integer samples at the model's rate; only tables and people see seconds.
"""

from __future__ import annotations

MODEL_SAMPLE_RATE = 16_000
"""Hz. Every model family we run (Whisper, wav2vec2 and its kin, silero-vad) was trained at this rate."""


def samples_from_seconds(seconds: float, sample_rate: int = MODEL_SAMPLE_RATE) -> int:
    """Nearest whole sample (halves go up)."""
    return int(seconds * sample_rate + 0.5)


def seconds_from_samples(num_samples: int, sample_rate: int = MODEL_SAMPLE_RATE) -> float:
    """Exact quotient as float64."""
    return num_samples / sample_rate


def resampled_length(num_samples: int, source_rate: int, target_rate: int = MODEL_SAMPLE_RATE) -> int:
    """Samples at `target_rate` that cover `num_samples` at `source_rate`: the nearest whole number.

    >>> resampled_length(44_100, 44_100)
    16000
    """
    return (2 * num_samples * target_rate + source_rate) // (2 * source_rate)
