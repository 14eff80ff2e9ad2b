"""Segments -> results of a model in exact batches: sorted by length, under a padded budget, taken apart where one fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

from audiomill.audio.bucketing import budget_batches
from audiomill.audio.cutting.segment import Segment
from audiomill.errors import RunError
from audiomill.models.base import OnProgress, SpeechModel, no_progress
from audiomill.models.batch import ForwardCost
from audiomill.models.watchdog import heartbeat

_T = TypeVar("_T")


class Batched(Generic[_T]):
    """`results`: in the order given; in the place of one that the model failed on stands its error."""

    def __init__(self, results: list[_T | Exception], cost: ForwardCost) -> None:
        self.results, self.cost = results, cost


def run_batches(
    segments: Sequence[Segment],
    padded_lengths: Sequence[int],
    forward: Callable[[list[Segment]], list[_T]],
    batch_samples: int,
    model: SpeechModel,
    on_progress: OnProgress = no_progress,
) -> Batched[_T]:
    """Length-sorted batches under a padded budget; results come back in the order given.

    The first batch that the memory does not hold is halved, with all that follow. Any other batch that raises is run
    again row by row; a row that fails alone has its error for a result.

    Args:
        segments: any number.
        padded_lengths: samples that each occupies in a batch.
        forward: one batch.
        batch_samples: the budget.
        model: whose memory is spared.
        on_progress: takes rows that failed; the others are reported by `forward`.
    """
    alone = model.pads_rows_alone
    lengths = np.array([len(segment.pcm_T) for segment in segments], np.int64)
    padded = np.array(padded_lengths, np.int64)
    results: dict[int, _T | Exception] = {}
    num_padded, num_halved = 0, 0
    todo = deque(budget_batches(padded, batch_samples, alone=alone))
    while todo:
        rows = todo.popleft()
        batch = [segments[i] for i in rows]
        outcome: list[_T | Exception]
        try:
            outcome = list(forward(batch))
        except RunError:
            raise
        except Exception as failure:
            if is_out_of_memory(failure) and num_halved == 0 and len(rows) > 1:
                num_halved = 1
                model.spare_memory()
                todo = deque(half for each in (rows, *todo) for half in np.array_split(each, 2) if len(half))
                continue
            outcome = _one_by_one(batch, forward, on_progress)
        heartbeat()
        assert len(outcome) == len(rows), "one result per segment"
        num_padded += int(padded[rows].sum()) if alone else int(padded[rows].max()) * len(rows)
        for at, index in enumerate(rows.tolist()):
            results[index] = outcome[at]
    in_order = [results[index] for index in range(len(segments))]
    return Batched(in_order, ForwardCost(int(lengths.sum()), num_padded, num_halved))


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch could not get the memory that it asked for, on a GPU or a CPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _one_by_one(
    batch: list[Segment], forward: Callable[[list[Segment]], list[_T]], on_progress: OnProgress
) -> list[_T | Exception]:
    results: list[_T | Exception] = []
    for segment in batch:
        try:
            results += forward([segment])
            heartbeat()
        except Exception as alone:
            results.append(alone)
            on_progress(1, len(segment.pcm_T))
    return results
