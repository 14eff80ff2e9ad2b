"""How sure one may be of a word that Whisper wrote: its probabilities -> the share of such words that are right.

A logistic model, fitted by benchmarks/confidence.py on speech in noise with known texts, tiny.en and base together; its
reliability on other voices stands in benchmarks/results/confidence.json.
Source of the method: Platt 1999; Naderi et al. 2023 and others find token probabilities of Whisper overconfident.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Evidence(NamedTuple):
    """What is known of a word. `probability`: mean of its tokens; `avg_logprob`: of its segment; `fallback_level`: that gave it."""

    probability: float
    avg_logprob: float
    fallback_level: int


CONFIDENCE_WEIGHTS = (2.907, 0.536, 4.12, -0.163)
"""Of one, the token probability (as log odds), the segment's avg_logprob, and a rung above 0."""


def confidence_features(evidence: Evidence) -> tuple[float, ...]:
    """What the weights are for."""
    return (1.0, _log_odds(evidence.probability), evidence.avg_logprob, float(evidence.fallback_level > 0))


def word_confidence(evidence: Evidence) -> float:
    """Probability that the word is right."""
    total = sum(weight * value for weight, value in zip(CONFIDENCE_WEIGHTS, confidence_features(evidence), strict=True))
    return 1.0 / (1.0 + math.exp(-total))


DOUBTFUL = 0.3
"""At most, of a text that no attempt got past its checks: it broke off or loops, however sure its words are."""


def segment_confidence(words: Sequence[float], no_speech_prob: float, has_failed: bool = False) -> float:
    """Expected share of words that are right; of a segment without words, how sure Whisper is that nobody speaks.

    Args:
        words: confidence of each.
        no_speech_prob: of the segment.
        has_failed: the text did not pass its checks.
    """
    sure = sum(words) / len(words) if words else no_speech_prob
    return min(sure, DOUBTFUL) if has_failed and words else sure


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(clipped / (1 - clipped))
