"""Texts of the second and later models of a job that transcribe; the first one's are in `segments`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from audiomill.models.base import RequestedOutputs, Transcript
from audiomill.schema import WORD, column
from audiomill.tables.output import ModelRequest, Output, Predictions, segment_id
from audiomill.tables.rows import text_columns
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


def _rows(answered: Predictions, kind: pa.Schema) -> pa.Table:
    """By segment, then by model."""
    main = next(n for n, task in enumerate(answered.tasks) if task.requested.is_main)
    results = [
        _row(cut, task, answered.texts[number][at], answered.texts[main][at])
        for at, cut in enumerate(answered.cuts)
        for number, task in enumerate(answered.tasks)
        if task.requested.beside
    ]
    return pa.Table.from_pylist(results, schema=kind)


def _row(cut: Any, task: Any, text: Transcript | None, main: Transcript | None) -> dict[str, Any]:
    assert text is not None and task.requested.transcripts is not None, "the model transcribes"
    columns = text_columns(text, cut["start"], cut["stop"])
    return {
        "segment_id": segment_id(cut),
        "recording_id": cut["recording_id"],
        "transcript": task.requested.beside,
        "model": task.label,
        "task": task.requested.transcripts.task,
        **{name: columns[name] for name in ("language", "text", "confidence", "words")},
        "model_agreement": model_agreement(main.text if main is not None else "", text.text, text.language),
    }


def _is_wanted(requested: RequestedOutputs) -> bool:
    return bool(requested.beside)


def _schema(asked: Sequence[ModelRequest]) -> pa.Schema:
    return _SCHEMA


TRANSCRIPTS = Output(
    name="transcripts",
    documented=_SCHEMA,
    is_wanted=_is_wanted,
    schema=_schema,
    rows=_rows,
    bytes_per_second=lambda asked: _BYTES_PER_SECOND * bool(asked.spec.requested.beside),
)
