"""An output as if another one of its transcripts stood in `segments` and `recordings`: for scores, exports and reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from audiomill import schema
from audiomill.config.defaults import FIRST
from audiomill.errors import InputError
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import part_name, read_table
from audiomill.tables.rows import in_time_order, joined_text, spoken_language

_TEXTS = ("text", "language", "confidence", "words")
"""Columns of a segment that another transcript has too."""
OF_THE_FIRST = (
    "language_probability", "avg_logprob", "no_speech_prob", "compression_ratio", "phrases", "fallback_level", "failed_checks", "first_pass_text",
    "self_consistency", "nbest",
)  # fmt: skip
"""Columns that say how the first model came to its text."""


def check_chosen(output: Place, transcript: int) -> None:
    """Raises InputError for a transcript that the output does not have."""
    if transcript == FIRST:
        return
    there: set[int] = set()
    if output.join("transcripts").names():
        for _, rows in ledger.each_part(output, "transcripts", ["transcript"]):
            there |= set(rows.column("transcript").to_pylist())
    if transcript not in there:
        known = ", ".join(map(str, (FIRST, *sorted(there))))
        raise InputError(f"--transcript {transcript}: {output.url} has {known}; the models of its job count from 1")


def transcript_parts(
    output: Place, table: str, columns: list[str] | None, transcript: int
) -> Iterator[tuple[int, pa.Table]]:
    """Part numbers and rows of `recordings` or `segments`, as `ledger.each_part` gives them, with the chosen texts."""
    if transcript == FIRST:
        yield from ledger.each_part(output, table, columns)
        return
    for part, rows in ledger.each_part(output, table):
        chosen = with_texts(output, part, table, rows, transcript)
        yield part, chosen if columns is None else chosen.select(columns)


def with_texts(output: Place, part: int, table: str, rows: pa.Table, transcript: int) -> pa.Table:
    """Rows of a part of `recordings` or `segments` with the texts of another transcript."""
    if transcript == FIRST:
        return rows
    name = part_name(part) + ".parquet"
    texts = {
        row["segment_id"]: row
        for row in read_table(output.join("transcripts", name)).to_pylist()
        if row["transcript"] == transcript
    }
    if table == "segments":
        return pa.Table.from_pylist([_segment(row, texts) for row in rows.to_pylist()], schema=schema.SEGMENTS)
    spoken: dict[str, list[dict[str, Any]]] = {}
    columns = ["id", "recording_id", "start_s", "stop_s", "channel"]
    for row in read_table(output.join("segments", name), columns).to_pylist():
        text = {key: texts[row["id"]][key] for key in ("text", "language")}
        spoken.setdefault(row["recording_id"], []).append({**row, **text})
    results = [_recording(row, spoken.get(row["id"], ())) for row in rows.to_pylist()]
    return pa.Table.from_pylist(results, schema=schema.RECORDINGS)


def _recording(row: dict[str, Any], segments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A model that tells no language has been given the one that is known."""
    return {
        **row,
        "text": joined_text(in_time_order(segments)),
        "language": spoken_language(segments) or row["language"],
    }


def _segment(row: dict[str, Any], texts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {**row, **dict.fromkeys(OF_THE_FIRST), **{name: texts[row["id"]][name] for name in _TEXTS}}
