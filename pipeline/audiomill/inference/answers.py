"""What a model in memory answers: a frozen value for each recording, with the rows that a job would write.

F frames, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audiomill.tables.outputs import OUTPUTS

_READINGS = {output.name: output.reading for output in OUTPUTS if output.reading is not None}


@dataclass(frozen=True)
class SpokenWord:
    """A word and its span in the recording, in seconds. `confidence`: the expected share of right words."""

    text: str
    start_s: float
    stop_s: float
    probability: float
    confidence: float
    speaker: str | None = None


@dataclass(frozen=True)
class TextSegment:
    """A row of the segments table, without what only other rows can use. `words`: None where none were asked for."""

    id: str
    channel: int | None
    start_s: float
    stop_s: float
    speaker: str | None
    text: str | None
    language: str | None
    language_probability: float | None
    avg_logprob: float | None
    no_speech_prob: float | None
    confidence: float | None
    fallback_level: int | None
    failed_checks: tuple[str, ...] | None
    words: tuple[SpokenWord, ...] | None


@dataclass(frozen=True)
class SegmentVectors:
    """Hidden states of a segment: `values` is values_FD, or values_D where pooled."""

    segment_id: str
    start_s: float
    stop_s: float
    layer: int
    pool: str
    frame_rate_hz: float
    first_frame_s: float
    values: NDArray[Any]


@dataclass(frozen=True)
class SegmentCodes:
    """Discrete codes of a segment: codes_F of one codebook."""

    segment_id: str
    start_s: float
    stop_s: float
    quantizer: str
    codebook: int
    num_entries: int
    frame_rate_hz: float
    first_frame_s: float
    values: NDArray[np.uint16]


@dataclass(frozen=True)
class Answer:
    """Of one recording.

    Attributes:
        id: of the recording, as in the tables.
        source: path, URL, or `input-000000` for what has no name.
        duration_s: of the recording.
        tables: its rows of every table of the job, by the table's name.
    """

    id: str
    source: str
    duration_s: float
    tables: Mapping[str, pa.Table] = field(repr=False)

    def to_arrow(self, table: str = "segments") -> pa.Table:
        """The rows of a table, with the schema that the job writes."""
        return self.tables[table]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, arrays as lists: what `json.dumps` takes."""
        return {
            each.name: _plain(getattr(self, each.name)) for each in dataclasses.fields(self) if each.name != "tables"
        }


@dataclass(frozen=True)
class Transcription(Answer):
    """Text of a recording. `language`: that of most of its seconds."""

    text: str
    language: str | None
    segments: tuple[TextSegment, ...] = field(repr=False)

    @property
    def words(self) -> list[SpokenWord]:
        """Of all segments, in order."""
        return [word for segment in self.segments for word in segment.words or ()]


@dataclass(frozen=True)
class Embedding(Answer):
    """Vectors of a recording, by segment and layer."""

    vectors: tuple[SegmentVectors, ...] = field(repr=False)


@dataclass(frozen=True)
class Encoding(Answer):
    """Discrete codes of a recording, by segment and codebook."""

    codes: tuple[SegmentCodes, ...] = field(repr=False)


@dataclass(frozen=True)
class Rejection:
    """A recording that could not be used. `stage`, `reason`, `detail`: as in the rejections table."""

    id: str
    source: str
    stage: str
    reason: str
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def to_rejection(row: Mapping[str, Any]) -> Rejection:
    """Of a row of the rejections table."""
    return Rejection(*(row[name] for name in ("id", "source", "stage", "reason", "detail")))


def to_transcription(recording: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Transcription:
    """Of a row of the recordings table and the rows of that recording."""
    segments = tuple(_text_segment(row) for row in tables["segments"].to_pylist())
    text, language = recording["text"] or "", recording["language"]
    return Transcription(**_base(recording, tables), text=text, language=language, segments=segments)


def to_embedding(recording: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Embedding:
    """See `to_transcription`."""
    return Embedding(
        **_base(recording, tables),
        vectors=tuple(SegmentVectors(**row) for row in _arrays(tables, "embeddings", SegmentVectors)),
    )


def to_encoding(recording: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Encoding:
    """See `to_transcription`."""
    return Encoding(
        **_base(recording, tables), codes=tuple(SegmentCodes(**row) for row in _arrays(tables, "codes", SegmentCodes))
    )


def tables_of(recording_id: str, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The rows of one recording."""
    return {
        name: rows.filter(
            pc.equal(rows.column("id" if name in ("recordings", "rejections") else "recording_id"), recording_id)
        )
        for name, rows in tables.items()
    }


def _base(recording: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    return {**{name: recording[name] for name in ("id", "source", "duration_s")}, "tables": tables}


def _text_segment(row: Mapping[str, Any]) -> TextSegment:
    values = {each.name: row[each.name] for each in dataclasses.fields(TextSegment)}
    if row["words"] is not None:
        values["words"] = tuple(
            SpokenWord(**{"text": word["word"]} | {k: v for k, v in word.items() if k != "word"})
            for word in row["words"]
        )
    if row["failed_checks"] is not None:
        values["failed_checks"] = tuple(row["failed_checks"])
    return TextSegment(**values)


def _arrays(tables: Mapping[str, pa.Table], name: str, kind: type) -> list[dict[str, Any]]:
    """Rows of a table of arrays, with the span of their segment and their values."""
    rows, reading = tables[name].combine_chunks(), _READINGS[name]
    spans = {row["id"]: row for row in tables["segments"].select(["id", "start_s", "stop_s"]).to_pylist()}
    plain = [each.name for each in dataclasses.fields(kind) if each.name in rows.column_names and each.name != "values"]
    results = []
    for number, row in enumerate(rows.select(plain).to_pylist()):
        span = {edge: spans[row["segment_id"]][edge] for edge in ("start_s", "stop_s")}
        chosen = {key: rows.column(key)[number].as_py() for key in reading.choose_by}
        results.append({**row, **span, "values": reading.values(rows, number, chosen)})
    return results


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return value
