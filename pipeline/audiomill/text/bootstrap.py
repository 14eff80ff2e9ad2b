"""Is one recogniser better than another on the same recordings, or was it luck? N recordings.

Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_SAMPLES = 10_000
ROWS_AT_A_TIME = 500
INTERVAL = (2.5, 97.5)


class Comparison(NamedTuple):
    """`before` and `after`: word error rates, each with its 95% interval; `probability`: share of resampled test sets on
    which the second is not better (ties count half); small means better."""

    before: float
    after: float
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]
    probability: float

    def is_better(self, level: float) -> bool:
        return self.after < self.before and self.probability < level


def paired_bootstrap(
    edits_before: Sequence[int],
    edits_after: Sequence[int],
    num_words: Sequence[int],
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap over recordings.

    Args:
        edits_before: word errors of each recording by the first recogniser.
        edits_after: by the second.
        num_words: of each reference.
        num_samples: resampled test sets.
        seed: of the resampling.
    """
    before, after, words = (np.asarray(each, np.float64) for each in (edits_before, edits_after, num_words))
    assert len(before) == len(after) == len(words) > 0, "the same recordings"
    rates = np.concatenate(list(_resampled(before, after, words, num_samples, np.random.default_rng(seed))), axis=1)
    worse = float((rates[1] > rates[0]).mean() + 0.5 * (rates[1] == rates[0]).mean())
    low, high = (np.percentile(rates, each, axis=1) for each in INTERVAL)
    total = max(1.0, words.sum())
    return Comparison(
        float(before.sum() / total),
        float(after.sum() / total),
        (float(low[0]), float(high[0])),
        (float(low[1]), float(high[1])),
        worse,
    )


def _resampled(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    words: NDArray[np.float64],
    num_samples: int,
    random: np.random.Generator,
) -> list[NDArray[np.float64]]:
    """Word error rates of both, of resampled test sets."""
    results = []
    share = np.full(len(words), 1 / len(words))
    for at in range(0, num_samples, ROWS_AT_A_TIME):
        counts = random.multinomial(len(words), share, size=min(ROWS_AT_A_TIME, num_samples - at)).astype(np.float64)
        total = np.maximum(1.0, counts @ words)
        results.append(np.stack([counts @ before / total, counts @ after / total]))
    return results
