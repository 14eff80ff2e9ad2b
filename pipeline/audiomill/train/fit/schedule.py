"""Learning rate by update. Source: SpecAugment (arXiv:1904.08779), section 3.2, for the three stages; wav2vec 2.0 uses them."""

from __future__ import annotations

import math

FINAL_SHARE = 0.05
"""Of the highest rate, at the end of a tri-stage schedule, as fairseq's wav2vec 2.0 recipes have it."""


def rate_share(kind: str, update: int, num_updates: int, warmup: int, hold_ratio: float) -> float:
    """Share of the highest learning rate at an update from 0 on; above 0 everywhere.

    `warmup`: updates in which it rises.

    >>> [round(rate_share("tri-stage", n, 100, 10, 0.4), 3) for n in (0, 9, 49, 99)]
    [0.1, 1.0, 1.0, 0.053]
    """
    if update < warmup:
        return (update + 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        done = (update - warmup) / max(1, num_updates - warmup)
        return 0.5 * (1 + math.cos(math.pi * done))
    hold_until = warmup + int(hold_ratio * num_updates)
    if update < hold_until:
        return 1.0
    done = (update - hold_until) / max(1, num_updates - hold_until)
    return float(FINAL_SHARE**done)
