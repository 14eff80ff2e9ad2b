"""Quality checks of a text by what its decoder reports: log-probability, compression ratio, no-speech probability, repetition.

Sources: openai/whisper transcribe.py (log-probability, compression ratio, no-speech and their thresholds); the rest and
`SURE_SILENCE` were measured, see `benchmarks/results`.
"""

from __future__ import annotations

from typing import NamedTuple

from audiomill.config.text import TranscriptConfig

MAX_CHARS_PER_SECOND = 40.0
"""Fast speakers reach 25."""
CHARS_FREE = 20
"""A word of half a second may be long."""
SAID_CHARS_PER_SECOND = 6.0, 22.0
"""Of a sentence that is really said again and again."""
MAX_REPEATS = 4
"""Of the same words in a row."""
SURE_SILENCE = 0.75
"""No-speech probability above which a text that is not sure of itself counts as invented."""
SURE_SILENCE_LOGPROB = -0.5
_MIN_SPEECH_S = 0.1
"""Windows with less voice activity than this hold no words."""


HOPELESS_LOGPROB = -1.3
"""Below this mean log-probability the first attempt is not worth a second one: another language, or noise alone."""
UNSURE_LOGPROB = -0.6
"""Below this mean log-probability a text that repeats itself is no real repetition."""


class DecodingMetrics(NamedTuple):
    """Of one text. `overrun_s`: by how much text is said to begin behind the audio's end; `speech_s`: voice activity, None where
    it was not measured."""

    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    num_repeats: int
    chars_per_second: float
    is_finished: bool
    overrun_s: float
    speech_s: float | None


def failed_checks(metrics: DecodingMetrics, text: TranscriptConfig, may_repeat: bool = True) -> tuple[str, ...]:
    """Names of the quality checks that a text does not pass. `may_repeat`: see `is_real_repetition`."""
    is_real = may_repeat and is_real_repetition(metrics)
    failed_checks = {
        "avg_logprob": metrics.avg_logprob < text.min_avg_logprob,
        "compression_ratio": metrics.compression_ratio > text.max_compression_ratio and not is_real,
        "repeated": metrics.num_repeats > MAX_REPEATS and not is_real,
        "too_fast": metrics.chars_per_second > MAX_CHARS_PER_SECOND,
        "unfinished": not metrics.is_finished,
        "past_the_end": metrics.overrun_s > 0.0,
    }
    return tuple(name for name, failed in failed_checks.items() if failed)


def is_real_repetition(metrics: DecodingMetrics) -> bool:
    """Whether a text that repeats itself is as long as somebody speaks: a decoder that loops writes more than can be said, or
    breaks off, is not sure, or says it of silence."""
    least, most = SAID_CHARS_PER_SECOND
    is_sure = metrics.is_finished and metrics.avg_logprob >= UNSURE_LOGPROB
    return is_sure and least <= metrics.chars_per_second <= most


def is_loop(metrics: DecodingMetrics, text: TranscriptConfig) -> bool:
    """Whether the text repeats itself."""
    return metrics.num_repeats > MAX_REPEATS or metrics.compression_ratio > text.max_compression_ratio


def is_silence(metrics: DecodingMetrics, text: TranscriptConfig) -> bool:
    """Whether the text was made of nothing: the model says so and is not sure of its words, or nobody speaks."""
    if has_no_speech(metrics):
        return True
    doubtful = metrics.no_speech_prob > text.max_no_speech_prob and metrics.avg_logprob < text.min_avg_logprob
    return doubtful or (metrics.no_speech_prob > SURE_SILENCE and metrics.avg_logprob < SURE_SILENCE_LOGPROB)


def has_no_speech(metrics: DecodingMetrics) -> bool:
    """Whether voice activity was measured and there is none."""
    return metrics.speech_s is not None and metrics.speech_s < _MIN_SPEECH_S


def is_not_worth_retrying(metrics: DecodingMetrics, failed_checks: tuple[str, ...]) -> bool:
    """Whether a text that fails these checks would not become better in a longer context.

    What is merely unlikely, and did not loop or break off, stays as wrong: in 67 such segments of English in noise (934
    words, tiny.en) the first attempt had 862 words wrong, the full window 880.
    """
    return failed_checks == ("avg_logprob",) and metrics.avg_logprob < HOPELESS_LOGPROB


def is_better(new: DecodingMetrics, old: DecodingMetrics, text: TranscriptConfig) -> bool:
    """Fewer failed checks, or of as many a higher log-probability."""
    both_repeat = is_loop(new, text) == is_loop(old, text)  # else one of them loops
    num_new, num_old = (len(failed_checks(each, text, both_repeat)) for each in (new, old))
    return num_new < num_old or (num_new == num_old and new.avg_logprob > old.avg_logprob)


def chars_per_second(text: str, seconds: float) -> float:
    """Of what goes beyond a free number, so that single words in short segments pass."""
    return max(0, len(text) - CHARS_FREE) / max(seconds, 0.02)
