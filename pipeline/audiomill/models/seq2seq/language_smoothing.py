"""One language after the other along a recording: what each segment sounds like, smoothed.

S segments in time order, K languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

SWITCH = 0.05
"""Probability that the next segment is in another language. An isolated segment is believed to be in another language
where that is some 400 times as probable; two in a row need 20 times each."""
LEAST = 1e-4


def smooth_languages(probabilities: Sequence[Mapping[str, float]]) -> list[str]:
    """The most probable sequence of languages (Viterbi 1967).

    Args:
        probabilities: of each language for each segment; languages that are not named count as impossible.

    Returns:
        A language for each segment.
    """
    codes = sorted({code for probability in probabilities for code in probability})
    emitted_SK = np.log([[max(each.get(code, 0.0), LEAST) for code in codes] for each in probabilities])
    # The number of languages does not make a switch dearer: what counts is how probable this one is.
    step_KK = np.full((len(codes), len(codes)), np.log(SWITCH))
    np.fill_diagonal(step_KK, np.log(1 - SWITCH))
    best_K, came_from = emitted_SK[0], []
    for emitted_K in emitted_SK[1:]:
        ways_KK = best_K[:, None] + step_KK
        came_from.append(ways_KK.argmax(0))
        best_K = ways_KK.max(0) + emitted_K
    path = [int(best_K.argmax())]
    for back_K in reversed(came_from):
        path.append(int(back_K[path[-1]]))
    return [codes[k] for k in reversed(path)]
