"""Which clips share a batch, and which batches an update: a function of lengths, seed and epoch alone.

So a run that is killed goes on with the batch that it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.bucketing import budget_batches

LENGTH_JITTER = 0.1
"""Lengths are multiplied by up to this much more or less before sorting: other neighbours every epoch."""


class Update(NamedTuple):
    """One step of the optimiser. `batches`: clip numbers of every batch, all workers' together."""

    number: int
    epoch: int
    batches: list[NDArray[np.int64]]


def epoch_batches(num_samples: NDArray[np.int64], budget: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Batches of like length under a padded budget, in random order; every clip is in exactly one.

    Args:
        num_samples: of each clip.
        budget: most samples a batch may have after padding.
        seed: with `epoch` gives the order.
        epoch: from 0.
    """
    random = np.random.default_rng([seed, epoch, 1])
    order = random.permutation(len(num_samples))
    jittered = num_samples[order] * (1 + LENGTH_JITTER * (2 * random.random(len(order)) - 1))
    by_length = order[np.argsort(-jittered, kind="stable")]
    batches = []
    for rows in _runs(num_samples[by_length], budget):
        batches.append(by_length[rows])
    return [batches[at] for at in random.permutation(len(batches))]


def _runs(num_samples: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Neighbours that fit the budget together, their order kept."""
    start, longest = 0, 0
    for at, length in enumerate(num_samples.tolist()):
        longest = max(longest, length)
        if at > start and longest * (at + 1 - start) > budget:
            yield np.arange(start, at)
            start, longest = at, length
    if start < len(num_samples):
        yield np.arange(start, len(num_samples))


def updates_an_epoch(num_samples: NDArray[np.int64], budget: int, seed: int, batches_an_update: int) -> int:
    """Of the first epoch; others may have one more or less."""
    return max(1, -(-len(epoch_batches(num_samples, budget, seed, 0)) // batches_an_update))


def updates(
    num_samples: NDArray[np.int64], budget: int, seed: int, batches_an_update: int, first: int, last: int
) -> Iterator[Update]:
    """Updates `[first, last)`; the last one of an epoch may have fewer batches."""
    number = epoch = 0
    while number < last:
        batches = epoch_batches(num_samples, budget, seed, epoch)
        for at in range(0, len(batches), batches_an_update):
            if number >= last:
                return
            if number >= first:
                yield Update(number, epoch, batches[at : at + batches_an_update])
            number += 1
        epoch += 1


def evaluation_batches(num_samples: NDArray[np.int64], budget: int) -> Sequence[NDArray[np.int64]]:
    """Every clip once, longest first."""
    return list(budget_batches(num_samples, budget))
