"""Texts as they left a decoder -> transcripts: of the first model for the segments table, of others for `transcripts`."""

from __future__ import annotations

from collections.abc import Sequence

from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Prediction, Transcript
from audiomill.models.batch import Batch, SegmentResult
from audiomill.models.task import LoadedTask
from audiomill.stages.steps.fallback import with_fallback
from audiomill.stages.steps.forward import predict


def transcribe(batch: Batch, number: int, task: LoadedTask) -> Batch:
    """The transcripts of one of the models."""
    transcripts = task.model.transcripts(batch.segments_for(number), batch.hypotheses(number))
    return batch.with_transcripts(number, transcripts)


def keep_first_pass(batch: Batch, number: int, task: LoadedTask) -> Batch:
    """The transcripts, each with what the first pass wrote where something else, or nothing, was kept."""
    changed = [each for each in batch.good if _is_changed(each, number)]
    if not changed:
        return batch
    before = task.model.transcripts([each.segment for each in changed], [each.first[number].text for each in changed])
    first_texts = iter([each.text for each in before])

    def with_first(result: SegmentResult) -> SegmentResult:
        transcript = result.transcripts[number]
        if not _is_changed(result, number) or (text := next(first_texts)) == transcript.text:
            return result
        return result.with_transcript(number, transcript._replace(first_pass_text=text))

    return batch.mapped(with_first)


def _is_changed(result: SegmentResult, number: int) -> bool:
    transcript = result.transcripts[number]
    return bool(transcript.fallback_level or transcript.failed_checks)


def transcripts_of(segments: Sequence[Segment], task: LoadedTask, falls_back: bool) -> list[Transcript | None]:
    """Transcripts of other segments than those of the batch, None where the model fails.

    Args:
        segments: in the model's form.
        task: the model.
        falls_back: texts that fail their checks are decoded again.
    """
    predictions = predict(segments, task).results
    good = [at for at, each in enumerate(predictions) if isinstance(each, Prediction)]
    texts: Sequence[object] = [each.text for each in predictions if isinstance(each, Prediction)]
    mine = [segments[at] for at in good]
    if falls_back:
        texts = with_fallback(mine, texts, task)
    transcripts: list[Transcript | None] = [None] * len(segments)
    for at, transcript in zip(good, task.model.transcripts(mine, texts), strict=True):
        transcripts[at] = transcript
    return transcripts
