"""Segments are cut where the spoken language changes inside them, so that each side is decoded in its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from audiomill.audio.cutting.segment import Segment
from audiomill.models.batch import Batch, SegmentResult
from audiomill.models.task import LoadedTask


def cut_at_languages(
    batch: Batch, number: int, task: LoadedTask, forward_steps: Sequence[Callable[[Batch], Batch]]
) -> Batch:
    """The batch with such segments cut, and every model run over the parts.

    Args:
        batch: behind the forward passes.
        number: of the main model.
        task: that model.
        forward_steps: the forward passes. What the diarizer gave stays with the first part, whose clock it has.
    """
    diarizers = {n for n, spec in enumerate(batch.specs) if spec.requested.turns is not None}
    parts: dict[int, list[SegmentResult]] = {}
    for at, result in enumerate(batch.results):
        first, *rest = _split(result, number, task)
        if rest:
            known = {n: prediction for n, prediction in result.predictions.items() if n in diarizers}
            parts[at] = [SegmentResult(first, known, known), *(SegmentResult(part) for part in rest)]
    if not parts:
        return batch
    again = replace(batch, results=tuple(part for several in parts.values() for part in several))
    for step in forward_steps:
        again = step(again)
    done = iter(again.results)
    results: list[SegmentResult] = []
    for at, result in enumerate(batch.results):
        results += [next(done) for _ in parts[at]] if at in parts else [result]
    return replace(again, results=tuple(results))


def _split(result: SegmentResult, number: int, task: LoadedTask) -> list[Segment]:
    segment = result.segment
    if result.failure is not None or segment.left or segment.right or segment.is_overlap_copy:
        return [segment]
    return task.model.split_by_language(segment, result.predictions[number])
