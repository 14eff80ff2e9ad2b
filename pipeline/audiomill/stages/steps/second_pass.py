"""A larger model transcribes again what the first one is unsure of."""

from __future__ import annotations

import time
from dataclasses import replace

from audiomill.config.defaults import SECOND_PASS_LEVEL
from audiomill.models.base import Transcript
from audiomill.models.batch import Batch, SegmentResult
from audiomill.models.task import LoadedTask
from audiomill.stages.steps.transcribe import transcripts_of
from audiomill.tables.rows import stored_confidence

FAILED_CHECK = "second model"
"""The second model failed on the sound."""


def second_pass(batch: Batch, number: int, task: LoadedTask) -> Batch:
    """The transcripts of a model, doubtful ones in the words of the second model, which is given the segment without the
    context that the first one had."""
    second, below = task.second, task.spec.second_pass_threshold
    if second is None or below is None:
        return batch
    began = time.perf_counter()
    threshold = below

    def is_doubtful(result: SegmentResult) -> bool:
        return (stored_confidence(result.transcripts[number]) or 0.0) < threshold

    segments = [each.segment.core for each in batch.good if is_doubtful(each)]
    again = iter(transcripts_of(segments, second, falls_back=True))

    def instead(result: SegmentResult) -> SegmentResult:
        if not is_doubtful(result):
            return result
        return result.with_transcript(number, _instead(result.transcripts[number], next(again)))

    return replace(batch.mapped(instead), second_pass_s=time.perf_counter() - began)


def _instead(before: Transcript, after: Transcript | None) -> Transcript:
    """The second model's text in place of the first one's, which is kept as the first pass where it differs."""
    if after is None:
        return before._replace(failed_checks=(*(before.failed_checks or ()), FAILED_CHECK))
    first = before.first_pass_text if before.first_pass_text is not None else before.text
    return after._replace(fallback_level=SECOND_PASS_LEVEL, first_pass_text=first if first != after.text else None)
