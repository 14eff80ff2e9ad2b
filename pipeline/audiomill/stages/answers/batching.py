"""Utterances -> answers in exact batches: sorted by length, under a padded budget, taken apart where one fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from audiomill.audio.bucketing import budget_batches
from audiomill.errors import RunError
from audiomill.models.base import Prediction, SpeechModel, Utterance
from audiomill.models.watchdog import heartbeat


class Batched(NamedTuple):
    """Answers in plan order, None where the model failed, with what they cost; `num_halved`: how often the memory did
    not hold a batch; `errors`: by the number of the answer that is missing."""

    answers: list[Prediction | None]
    num_real: int
    num_padded: int
    num_halved: int = 0
    errors: Mapping[int, Exception] = MappingProxyType({})


def run_batches(
    utterances: Sequence[Utterance],
    padded_lengths: Sequence[int],
    forward: Callable[[list[Utterance]], list[Prediction]],
    batch_samples: int,
    model: SpeechModel,
) -> Batched:
    """Length-sorted batches under a padded budget; answers come back in the order given.

    The first batch that the memory does not hold is halved, with all that follow. Any other batch that raises is run
    again row by row; the answer of a row that fails alone is None, and its error is kept.
    """
    alone = model.pads_rows_alone
    lengths = np.array([len(u.pcm_T) for u in utterances], np.int64)
    padded = np.array(padded_lengths, np.int64)
    answers: list[Prediction | None] = [None] * len(utterances)
    errors: dict[int, Exception] = {}
    num_padded, num_halved = 0, 0
    todo = deque(budget_batches(padded, batch_samples, alone=alone))
    while todo:
        rows = todo.popleft()
        batch = [utterances[i] for i in rows]
        predictions: list[Prediction | None]
        try:
            predictions = list(forward(batch))
        except RunError:
            raise
        except Exception as failure:
            if is_out_of_memory(failure) and num_halved == 0 and len(rows) > 1:
                num_halved = 1
                model.spare_memory()
                todo = deque(half for each in (rows, *todo) for half in np.array_split(each, 2) if len(half))
                continue
            predictions, failed = _one_by_one(batch, forward)
            errors |= {int(rows[at]): failure for at, failure in failed.items()}
        heartbeat()
        assert len(predictions) == len(rows), "one answer per utterance"
        num_padded += int(padded[rows].sum()) if alone else int(padded[rows].max()) * len(rows)
        for index, answer in zip(rows.tolist(), predictions, strict=True):
            answers[index] = answer
        if model.on_progress is not None and not model.reports_progress:
            model.on_progress(len(rows), int(lengths[rows].sum()))
    return Batched(answers, int(lengths.sum()), num_padded, num_halved, errors=errors)


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch could not get the memory that it asked for, on a GPU or a CPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _one_by_one(
    batch: list[Utterance], forward: Callable[[list[Utterance]], list[Prediction]]
) -> tuple[list[Prediction | None], dict[int, Exception]]:
    answers: list[Prediction | None] = []
    errors: dict[int, Exception] = {}
    for at, utterance in enumerate(batch):
        try:
            answers += forward([utterance])
            heartbeat()
        except Exception as alone:
            answers.append(None)
            errors[at] = alone
    return answers, errors
