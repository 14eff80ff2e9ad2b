"""Manifests: NeMo JSON lines, Lhotse recordings, supervisions and cuts, CSV and TSV, Hugging Face metadata files.

Every row becomes an entry; a row that names no audio, holds a bad value or leaves its folder becomes an
entry with a reason, so that it ends as a rejection row and is not lost.
"""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Any, NamedTuple

from audiomill.errors import InputError
from audiomill.sources.delimited import (
    CHANNEL_COLUMNS,
    DURATION_COLUMNS,
    END_COLUMNS,
    LANGUAGE_COLUMNS,
    PATH_COLUMNS,
    START_COLUMNS,
    TEXT_COLUMNS,
    delimited_rows,
)
from audiomill.sources.entry import Entry
from audiomill.sources.kaldi import is_kaldi, kaldi_rows
from audiomill.sources.lhotse import cut_entry, recording_entry
from audiomill.sources.manifest_row import BadRow, Note, channel_of, first_of, number_of, resolve, text_of
from audiomill.storage.fs import Place, version_of
from audiomill.storage.urls import absolute, on_disk, path_of
from audiomill.text.encodings import UnknownEncoding, encoding_of, note_of

MANIFEST_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz")
_SCAN_BYTES = 1 << 20
NAMED_AT_ONCE = 1024
"""Files that are not looked at again for every row that means a span of them."""


class Supervision(NamedTuple):
    """What Lhotse says about a stretch of a recording."""

    recording_id: str
    start: float
    text: str


def is_manifest(name: str) -> bool:
    return path_of(name).lower().endswith(MANIFEST_SUFFIXES) or is_kaldi(name)


def read_manifest(place: Place, audio_root: str | None) -> Iterator[Entry | Supervision | Note]:
    """Rows of one manifest file.

    Args:
        place: the manifest.
        audio_root: folder that its paths are relative to and confined to; None: its own folder.
    """
    source, looked_at = absolute(place.url), lru_cache(NAMED_AT_ONCE)(_look)
    for number, row in read_rows(place):
        if isinstance(row, Note):
            yield row
            continue
        try:
            if isinstance(row, BadRow):
                raise row
            entry = _from_row(row, source, place, audio_root)
            if isinstance(entry, Entry) and place.is_local and entry.source.startswith("/"):
                size, version = looked_at(entry.source)
                entry = entry._replace(size=size, version=version)
            yield entry
        except BadRow as error:
            yield Entry(source, f"row {number}", reason=error.reason, detail=str(error))


def _look(path: str) -> tuple[int | None, str | None]:
    """Size and version of a local file, so that a later run sees that it changed; reading it says that it is not there."""
    try:
        result = os.stat(on_disk(path))
    except (OSError, ValueError):
        return None, None
    return result.st_size, version_of({"mtime": result.st_mtime})


def read_rows(place: Place) -> Iterator[tuple[int, dict[str, Any] | BadRow | Note]]:
    """Rows of a JSON-lines, JSON, CSV, TSV or Kaldi file (also gzipped) with their line numbers; notes on what is unusual.

    Raises:
        InputError: its encoding cannot be told, or it has no columns that are known.
    """
    if is_kaldi(place.url):
        yield from ((number, BadRow(row) if isinstance(row, str) else row) for number, row in kaldi_rows(place))
        return
    with _opened(place) as handle:
        try:
            encoding = encoding_of(iter(lambda: handle.read(_SCAN_BYTES), b""))
        except UnknownEncoding as unknown:
            raise InputError(f"{place.url}: {unknown}; convert it to UTF-8") from None
    note = note_of(encoding)
    if note is not None:
        yield 0, Note(f"{place.url}: {note}")
    with _opened(place) as handle:
        lines = io.TextIOWrapper(handle, encoding=encoding, newline="\n")
        name = path_of(place.url).lower().removesuffix(".gz")
        yield from (
            delimited_rows(lines, place.url, is_tab=name.endswith(".tsv"))
            if name.endswith((".csv", ".tsv"))
            else _json(lines)
        )


def _opened(place: Place) -> IO[bytes]:
    handle = place.open()
    return gzip.GzipFile(fileobj=handle) if path_of(place.url).lower().endswith(".gz") else handle  # type: ignore[return-value]


def _json(lines: io.TextIOWrapper) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """JSON lines; an array of objects and objects over several lines are read as well."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == 1 and (line.lstrip().startswith("[") or line.strip() == "{"):
            yield from _values(line + lines.read())
            return
        yield number, _object(line)


def _values(text: str) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Objects one after the other, or in an array; numbered by the line they begin in."""
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield 1, BadRow(f"expected JSON lines or an array of objects, got: {error}")
            return
        for number, value in enumerate(values, 1):
            yield (
                number,
                value if isinstance(value, dict) else BadRow(f"expected an object, got {type(value).__name__}"),
            )
        return
    parser, at, number = json.JSONDecoder(), 0, 1
    while at < len(text):
        prefill = at
        try:
            value, at = parser.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield number, BadRow(f"expected a JSON object, got: {error}")
            return
        yield number, value if isinstance(value, dict) else BadRow(f"expected an object, got {type(value).__name__}")
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        number += text.count("\n", prefill, at)


def _object(line: str) -> dict[str, Any] | BadRow:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(f"expected a JSON object, got {line.strip()[:80]!r}: {error}")
    return value if isinstance(value, dict) else BadRow(f"expected a JSON object, got {type(value).__name__}")


def _from_row(row: dict[str, Any], source: str, manifest: Place, audio_root: str | None) -> Entry | Supervision:
    if isinstance(row.get("sources"), list):
        return recording_entry(row, manifest, audio_root)
    if "recording" in row or str(row.get("type", "")).endswith("Cut"):
        return cut_entry(row, manifest, audio_root)
    if "recording_id" in row and "start" in row and not any(name in row for name in PATH_COLUMNS):
        return Supervision(str(row["recording_id"]), number_of(row, "start") or 0.0, str(row.get("text") or ""))
    if "shard_id" in row and not str(first_of(row, PATH_COLUMNS) or "").startswith("/"):
        raise InputError(f"{manifest.url}: is the manifest of tar files; name their folder, then it gives their texts")
    path = first_of(row, PATH_COLUMNS)
    if isinstance(path, dict):
        path = path.get("path")
    if not isinstance(path, str) or not path:
        raise BadRow(
            f"expected a path in one of {', '.join(PATH_COLUMNS)}; got columns {', '.join(map(str, row)) or 'none'}"
        )
    if "client_id" in row and "/" not in path:  # Common Voice keeps its clips in a folder of their own
        path = f"clips/{path}"
    start, duration = _span(row)
    text = text_of(first_of(row, TEXT_COLUMNS), "text")
    language = text_of(first_of(row, LANGUAGE_COLUMNS), "language")
    channel = channel_of(first_of(row, CHANNEL_COLUMNS))
    known = {*PATH_COLUMNS, *TEXT_COLUMNS, *START_COLUMNS, *END_COLUMNS, *LANGUAGE_COLUMNS, *DURATION_COLUMNS}
    known |= set(CHANNEL_COLUMNS) if channel is not None else set()
    extra = {name: value for name, value in row.items() if name not in known}
    return Entry(
        resolve(path, manifest, audio_root),
        duration_s=duration,
        span_start_s=start,
        span_duration_s=duration if start is not None else None,
        channel=channel,
        reference=text,
        language=language or None,
        metadata=json.dumps(extra, ensure_ascii=False, default=str) if extra else None,
    )


def _span(row: dict[str, Any]) -> tuple[float | None, float | None]:
    """Start and length of what a row means, None where it says neither; an end counts, however the length is called."""
    start, end, duration = (_firstnumber_of(row, names) for names in (START_COLUMNS, END_COLUMNS, DURATION_COLUMNS))
    if end is None:
        return start, duration
    start = start or 0.0
    if end <= start:
        raise BadRow(f"expected an end behind the start, got {start:g} to {end:g} s")
    return start, round(end - start, 6)


def _firstnumber_of(row: dict[str, Any], names: tuple[str, ...]) -> float | None:
    name = next((name for name in names if row.get(name) is not None), None)
    value = None if name is None else number_of(row, name)
    return value / 1000 if value is not None and name is not None and name.endswith("_ms") else value
