"""The first pass of a model over the segments of a piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import OnProgress, Prediction, no_progress
from audiomill.models.batch import Batch, SegmentResult
from audiomill.models.task import LoadedTask
from audiomill.stages.steps.batching import Batched, run_batches


def forward(batch: Batch, number: int, task: LoadedTask, on_progress: OnProgress = no_progress) -> Batch:
    """Runs one of the models.

    Args:
        batch: its segments.
        number: of the model.
        task: the model.
        on_progress: takes segments as they are done.
    """
    batched = predict(batch.segments_for(number), task, on_progress)

    def merge(result: SegmentResult, prediction: Prediction | Exception) -> SegmentResult:
        return result.with_prediction(number, prediction)

    return replace(batch.merged(batched.results, merge), costs=(*batch.costs, batched.cost))


def predict(
    segments: Sequence[Segment], task: LoadedTask, on_progress: OnProgress = no_progress
) -> Batched[Prediction]:
    """Predictions for segments in the model's own form."""
    model = task.model
    padded = [model.padded_length(len(segment.pcm_T)) for segment in segments]
    run = partial(model.forward_with_progress, on_progress=on_progress)
    return run_batches(segments, padded, run, task.spec.batch_samples, model, on_progress)
