"""Texts of the second and later models of a job that transcribe; the first one's are in `segments`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from audiomill.config.jobs import JobConfig
from audiomill.models.base import Transcript
from audiomill.models.batch import Batch, SegmentResult
from audiomill.models.task import TaskSpec
from audiomill.schema import WORD, column
from audiomill.tables.output import ModelRequest, Output, OutputRun, in_segment_order
from audiomill.tables.rows import text_columns
from audiomill.tables.speaker_tables import with_speakers_of_words
from audiomill.text.wer import score_pair

_BYTES_PER_SECOND = 120.0
"""Of text with words and their times, in Parquet."""
_SCHEMA = pa.schema(
    [
        column("segment_id", pa.string(), "joins segments.id"),
        column("recording_id", pa.string(), "joins recordings.id"),
        column(
            "transcript", pa.int8(), "which of the job's models that transcribe: 2 is the second; 1 stands in segments"
        ),
        column("model", pa.string(), "checkpoint as it was named"),
        column("task", pa.string(), "transcribe or translate"),
        column("language", pa.string(), "given or detected; null: the model has none", nullable=True),
        column("text", pa.string(), "transcript"),
        column("confidence", pa.float32(), "as in segments", "0..1", True),
        column("words", pa.list_(WORD), "words with times in the source; null: not asked for", "s", True),
        column(
            "model_agreement",
            pa.float32(),
            "share of words that are those of the segments table: 1 less the word error rate of one beside the other",
            "0..1",
        ),
    ]
)


def model_agreement(one: str, other: str, language: str | None) -> float:
    """How alike two texts are: 1 for the same words, 0 where none is shared."""
    if not one.strip() and not other.strip():
        return 1.0
    longer, shorter = sorted((one, other), key=lambda text: -len(text.split()))
    return round(max(0.0, 1.0 - score_pair(longer, shorter, language)[0].rate), 4)


def _resolve_run(job: JobConfig, asked: Sequence[ModelRequest]) -> OutputRun | None:
    return OutputRun(_SCHEMA) if any(each.spec.requested.beside for each in asked) else None


def _rows(batch: Batch, run: OutputRun) -> pa.Table:
    """By segment, then by model."""
    rows = [
        _row(each, batch.specs[number], transcript, batch.main)
        for each in batch.stored
        for number, transcript in each.transcripts.items()
        if number != batch.main
    ]
    return pa.Table.from_pylist(rows, schema=run.schema)


def _row(result: SegmentResult, spec: TaskSpec, transcript: Transcript, main: int | None) -> dict[str, Any]:
    assert spec.requested.has_text and main is not None, "two models transcribe"
    segment = result.segment
    columns = text_columns(transcript, segment.start, segment.stop)
    return {
        "segment_id": segment.id,
        "recording_id": segment.recording_id,
        "transcript": spec.requested.beside,
        "model": spec.label,
        "task": spec.requested.text.task,
        **{name: columns[name] for name in ("language", "text", "confidence", "words")},
        "model_agreement": model_agreement(result.transcripts[main].text, transcript.text, transcript.language),
    }


def _finish(tables: dict[str, pa.Table], rows: pa.Table, run: OutputRun) -> dict[str, pa.Table]:
    """With the speakers of their words, where the part has turns."""
    rows = in_segment_order(rows, tables)
    return {**tables, "transcripts": with_speakers_of_words(rows, tables) if "turns" in tables else rows}


TRANSCRIPTS = Output(
    name="transcripts",
    documented={"transcripts": _SCHEMA},
    resolve_run=_resolve_run,
    rows=_rows,
    finish=_finish,
    bytes_per_second=lambda asked: _BYTES_PER_SECOND * bool(asked.spec.requested.beside),
)
