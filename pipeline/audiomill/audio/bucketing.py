"""Bucketing: batches of like length under a padded-seconds budget, and how much of them is padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def budget_batches(
    num_samples: NDArray[np.int64], budget: int, max_rows: int = 512, alone: bool = False
) -> Iterator[NDArray[np.int64]]:
    """Cuts rows into batches of like length, longest first, so that a lack of memory shows at once.

    Args:
        num_samples: length of each row as the model pads it, in samples.
        budget: most samples a batch may have after padding; a longer row is a batch of its own.
        max_rows: most rows a batch may have.
        alone: rows keep their lengths instead of being padded to the longest of their batch.

    Yields:
        Row indices of one batch. Every row is in exactly one batch; equal lengths keep their order.
    """
    order = np.argsort(-num_samples, kind="stable")
    at = 0
    while at < len(order):
        if alone:
            count = int((num_samples[order[at : at + max_rows]].cumsum() <= budget).sum())
        else:
            count = budget // max(1, int(num_samples[order[at]]))
        count = max(1, min(max_rows, count))
        yield order[at : at + count]
        at += count


def padding_waste_pct(num_real: float, num_padded: float) -> float:
    """Share of padded work that is padding, in percent; 0 for nothing."""
    return 100.0 * (1.0 - num_real / num_padded) if num_padded else 0.0
