"""What windows change in the codes of encoders that look at everything: overlapping windows give codes to the same frames twice.

K codebooks, F frames.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from audiomill.models.base import Utterance
from audiomill.models.shape import Hop

MOST_KEPT = 64
"""Windows that are remembered: neighbours come soon after each other."""


class Overlaps:
    """Compares the codes of windows of one recording where they overlap.

    Args:
        step: from one frame to the next.
    """

    def __init__(self, step: Hop) -> None:
        self._step = step
        self._seen: list[tuple[tuple[str, int | None], int, NDArray[np.int64]]] = []
        self.num_compared = self.num_differing = 0

    def add(self, utterance: Utterance, codes_KF: NDArray[np.int64]) -> None:
        """Takes the codes of a window with its context."""
        first = round(Fraction(utterance.start - utterance.left) / self._step)
        if any((track, other) == (utterance.track, first) for track, other, _ in self._seen):
            return  # heard again
        for track, other, theirs_KF in self._seen:
            start, stop = max(first, other), min(first + codes_KF.shape[1], other + theirs_KF.shape[1])
            if track == utterance.track and start < stop:
                mine, others = codes_KF[:, start - first : stop - first], theirs_KF[:, start - other : stop - other]
                self.num_compared += mine.size
                self.num_differing += int((mine != others).sum())
        self._seen = [*self._seen[-MOST_KEPT + 1 :], (utterance.track, first, codes_KF)]

    def told(self) -> str:
        """In words; empty where no windows overlapped."""
        if not self.num_compared:
            return ""
        share = self.num_differing / self.num_compared
        return f"; windows: of codes that two windows gave to the same frames {share:.1%} differ (a longer --chunk-overlap-seconds, fewer)"
