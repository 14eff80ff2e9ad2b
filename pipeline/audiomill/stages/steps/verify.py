"""Numerical verification: a few random segments of a run, computed again alone, compared with what their batch gave.

It proves law 2 on the run's own audio, checkpoint and device, and notices a padding leak, a wrong kernel or a
broken card. One segment also goes through transformers' own processor and model: that a batch gives what a segment gives
alone says nothing if both are wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Parity, Prediction, SpeechModel
from audiomill.models.batch import Batch, Difference, largest
from audiomill.models.precision import product_kind
from audiomill.models.task import LoadedTask

Array = NDArray[np.float64]
MAX_RELATIVE_L2 = {"fp32": 1e-4, "bf16": 0.1, "fp16": 0.02, "int8": 0.02}
MAX_DIFFERING_SHARE = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02, "int8": 0.02}
"""Rounding may turn a tie between two codes or letters: a share that no leak of padding stays under."""
MAX_INPUTS_APART = 1e-3
MAX_OUTPUTS_APART = {"fp32": 1e-3, "bf16": 0.2, "fp16": 0.05, "int8": 0.3}
"""Compared with fp32, relative distances of hidden states or logits: a wrong weight or processor gives more."""


def choose_segments(parts: Sequence[int], num_wanted: int, seed: str) -> dict[int, int]:
    """How many segments of each part are compared; parts without any are left out.

    Args:
        parts: of this run.
        num_wanted: segments in all.
        seed: of the run, so that every run of it chooses the same.
    """
    ranked = sorted(parts, key=lambda number: hashlib.sha256(f"{seed}-{number}".encode()).digest())
    whole, rest = divmod(num_wanted, len(ranked))
    counts = {part: whole + (rank < rest) for rank, part in enumerate(ranked)}
    return {part: count for part, count in counts.items() if count}


def verify(batch: Batch, number: int, task: LoadedTask, count: int, seed: int) -> Batch:
    """Compares some predictions of a model's first pass.

    Args:
        batch: behind the forward pass.
        number: of the model.
        task: the model; its parity with transformers is looked at once.
        count: segments; all if there are fewer.
        seed: chooses them.
    """
    segments = batch.segments_for(number)
    if not count or not segments:
        return batch
    predictions = [each.first[number] for each in batch.good]
    difference = compare(task.model, segments, predictions, count, seed)
    task.parity = task.parity or parity_with_transformers(task.model, segments)
    inputs, outputs, note = task.parity
    both = largest([difference, Difference(inputs_apart=inputs, outputs_apart=outputs, not_compared=note)])
    return replace(batch, differences={**batch.differences, number: both})


def compare(
    model: SpeechModel, segments: Sequence[Segment], predictions: Sequence[Prediction], count: int, seed: int
) -> Difference:
    """Runs `count` of the segments again, each alone.

    Args:
        model: what gave the answers.
        segments: of a piece.
        answers: theirs, from batches.
        count: how many; all if there are fewer.
        seed: chooses them.
    """
    picked = np.random.default_rng(seed).permutation(len(segments))[:count]
    return largest(_difference(predictions[i], model.forward([segments[i]])[0]) for i in picked.tolist())


def parity_with_transformers(model: SpeechModel, segments: Sequence[Segment]) -> Parity:
    """One of the segments through transformers' own processor and model: the shortest of those of a second or more."""
    long = [segment for segment in segments if len(segment.pcm_T) >= MODEL_SAMPLE_RATE] or list(segments)
    try:
        return model.parity(min(long, key=lambda each: (len(each.pcm_T), str(each.track), each.start)))
    except Exception as error:  # theirs may raise anything; the run does not depend on it
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        return Parity(note=f"transformers raised {reason}")


def differs_from_transformers(difference: Difference, precision: str) -> str | None:
    """What is wrong compared with transformers, or None."""
    if not difference.inputs_apart <= MAX_INPUTS_APART:
        return f"what the model is given is {difference.inputs_apart:.1e} from what transformers' processor gives"
    most = MAX_OUTPUTS_APART[product_kind(precision)]
    if not difference.outputs_apart <= most:
        return (
            f"what comes out is {difference.outputs_apart:.1e} from transformers' own (at most {most:g} in {precision})"
        )
    return None


def verdict(difference: Difference, precision: str) -> str | None:
    """What is wrong, or None if the difference is rounding."""
    if difference.relative_l2 > MAX_RELATIVE_L2[product_kind(precision)] or not np.isfinite(difference.relative_l2):
        return f"vectors {difference.relative_l2:.1e} apart (at most {MAX_RELATIVE_L2[product_kind(precision)]:g} in {precision})"
    allowed = max(1.0, MAX_DIFFERING_SHARE[product_kind(precision)] * difference.num_compared)
    if difference.num_differing > allowed:
        return f"{difference.num_differing} of {difference.num_compared} codes or tokens differ (at most {allowed:.0f} in {precision})"
    return None


def _difference(together: Prediction, alone: Prediction) -> Difference:
    errors = [_relative_l2(a, b) for a, b in zip(together.numbers(), alone.numbers(), strict=True)]
    pairs = list(zip(together.symbols(), alone.symbols(), strict=True))
    differing = sum(int((a != b).sum()) if a.shape == b.shape else max(a.size, b.size) for a, b in pairs)
    return Difference(1, max(errors, default=0.0), differing, sum(b.size for _, b in pairs))


def _relative_l2(together: tuple[Array, Array], alone: tuple[Array, Array]) -> float:
    """Distance in the length of what was computed alone; one step of the stored type is rounding and counts as none."""
    (a, step), (b, _) = together, alone
    if a.shape != b.shape:
        return float("inf")
    norm = float(np.linalg.norm(b))
    distance = float(np.linalg.norm(np.maximum(np.abs(a - b) - 1.01 * step, 0.0)))
    return distance / norm if norm else distance
