"""Batches under a padded-seconds budget, and how much of them is padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def budget_batches(
    num_samples: NDArray[np.int64], budget: int, max_rows: int = 512, equal: bool = False
) -> Iterator[NDArray[np.int64]]:
    """Cuts rows into batches of like length, longest first, so that a lack of memory shows at once.

    Args:
        num_samples: length of each row as the model pads it, in samples.
        budget: most samples a batch may have after padding; a longer row is a batch of its own.
        max_rows: most rows a batch may have.
        equal: rows of a batch all have the same length.

    Yields:
        Row indices of one batch. Every row is in exactly one batch; equal lengths keep their order.
    """
    order = np.argsort(-num_samples, kind="stable")
    at = 0
    while at < len(order):
        longest = max(1, int(num_samples[order[at]]))
        count = max(1, min(max_rows, budget // longest))
        if equal:
            count = min(count, int((num_samples[order[at:]] == num_samples[order[at]]).sum()))
        yield order[at : at + count]
        at += count


def padding_waste_pct(num_real: float, num_padded: float) -> float:
    """Share of padded work that is padding, in percent; 0 for nothing."""
    return 100.0 * (1.0 - num_real / num_padded) if num_padded else 0.0
