"""Parquet shards with encoded audio: `struct<bytes, path>` (Hugging Face) or a binary column."""

from __future__ import annotations

import io
import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from audiomill.errors import InputError
from audiomill.sources.entry import Entry, Sidecar
from audiomill.sources.shard import Shard
from audiomill.storage.fs import Place

ROWS_AT_ONCE, PAGE_BUFFER_BYTES = 1, 1 << 20
"""Of a row group with audio, and what is read ahead of its pages."""
KIND, GROUP = "parquet", "parquet_group"
AUDIO_COLUMNS = ("audio", "bytes", "wav", "flac", "mp3", "audio_bytes", "content", "speech")
_TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text", "reference")
OTHER_MEDIA = ("image", "img", "video", "png", "jpg", "jpeg", "thumbnail", "mask", "embedding", "envelope")
"""Words in the names of columns that hold something else."""
_LANGUAGE_COLUMNS = ("language", "lang", "locale")
_DURATION_COLUMNS = ("duration", "duration_s")


class SeveralColumns(InputError):
    """More than one column may be the audio."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(
            f"expected one column with audio, or one named audio, got {', '.join(names)}; choose with --audio-column"
        )


def list_parquet(place: Place, source: str, column: str | None) -> Iterator[Entry] | None:
    """Row groups of a Parquet shard with audio bytes, by its footer alone: rows are read in the decode process, see
    `parquet_rows`.

    Returns:
        None if it has no audio column (it is some other table).
    """
    try:
        with place.open() as handle:
            metadata = pq.ParquetFile(handle).metadata
            is_audio = audio_column(metadata.schema.to_arrow_schema(), column) is not None
    except FileNotFoundError:
        raise
    except SeveralColumns as several:
        return iter([Entry(source, "", KIND, reason="unreadable_shard", detail=str(several))])
    except (pa.ArrowException, OSError, ValueError) as error:
        detail = f"expected a Parquet file, got: {error}"
        return iter([Entry(source, "", KIND, reason="unreadable_shard", detail=detail)])
    if not is_audio:
        return None
    return (
        Entry(source, f"group-{group}", GROUP, group, metadata.row_group(group).num_rows)
        for group in range(metadata.num_row_groups)
    )


def audio_column(arrow: pa.Schema, asked: str | None) -> str | None:
    """The column with encoded audio: the one asked for, or a struct with `bytes`, or else bytes; of several the one with
    a usual name."""
    structs = [c.name for c in arrow if pa.types.is_struct(c.type) and c.type.get_field_index("bytes") >= 0]
    binaries = [c.name for c in arrow if _holds_bytes(c.type)]
    if asked is not None:
        return asked if asked in structs + binaries else None
    for candidates in (structs, binaries):
        usual = next((name for name in AUDIO_COLUMNS if name in candidates), None)
        named = [name for name in candidates if not any(word in name.lower() for word in OTHER_MEDIA)]
        if usual is not None or len(named) == 1:
            return usual or named[0]
        if len(named) > 1:
            raise SeveralColumns(named)
    return None


def _holds_bytes(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return bool(pa.types.is_uint8(kind.value_type))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


class Row(NamedTuple):
    """What a row says beside its audio."""

    name: str | None = None
    reference: str | None = None
    language: str | None = None
    duration_s: float | None = None
    metadata: str | None = None


def parquet_rows(group: Entry, rows: Sequence[Row] | None, seen: Counter[str]) -> Iterator[Entry]:
    """The recordings of a row group.

    Args:
        group: as `list_parquet` lists it.
        rows: as `OpenShard.rows` gives them; None where it could not, which reading them will name.
        seen: names in this shard so far.
    """
    assert group.size is not None, "rows of the group"
    for number, row in enumerate(rows or [Row()] * group.size):
        name = row.name or f"row-{group.position}-{number}"
        seen[name] += 1
        yield Entry(
            group.source,
            name if seen[name] == 1 else f"{name}#{seen[name]}",
            KIND,
            group.position,
            number,
            version=group.version,
            duration_s=row.duration_s,
            reference=row.reference,
            language=row.language,
            metadata=row.metadata,
        )


class _Rows:
    """Audio of a row group, a few rows at a time: whole groups may hold more than memory does. Backwards means again."""

    def __init__(self, file: pq.ParquetFile, group: int, column: str) -> None:
        self._file, self._group, self._column = file, group, column
        self._restart()

    def _restart(self) -> None:
        self._batches = self._file.iter_batches(
            ROWS_AT_ONCE, row_groups=[self._group], columns=[self._column], use_threads=False
        )
        self._first, self._batch = 0, None

    def value(self, row: int) -> Any:
        """As Python has it."""
        if row < self._first:
            self._restart()
        while self._batch is None or row >= self._first + self._batch.num_rows:
            self._first += 0 if self._batch is None else self._batch.num_rows
            self._batch = None  # before the next one is there
            self._batch = next(self._batches)
        return self._batch.column(0)[row - self._first].as_py()


class OpenParquet:
    """See `OpenShard`; keeps the last row group."""

    def __init__(self, place: Place, column: str | None) -> None:
        self._place, self._handle, self._asked = place, place.open(), column
        self._group: tuple[int, _Rows] | None = None

    def member(self, kind: str, position: int, size: int | None) -> IO[bytes]:
        assert size is not None, "the row in its group"
        value = self._rows_of(position).value(size)
        content = value.get("bytes") if isinstance(value, dict) else value
        content = bytes(content) if isinstance(content, list) else content
        if content is None and isinstance(value, dict) and value.get("path"):
            return confined(value["path"], self._place).open()
        return io.BytesIO(content or b"")

    def _rows_of(self, position: int) -> _Rows:
        if self._group is None or self._group[0] != position:
            file = pq.ParquetFile(self._handle, pre_buffer=False, buffer_size=PAGE_BUFFER_BYTES)
            column = audio_column(file.schema_arrow, self._asked)
            assert column is not None, "the listing has seen it"
            self._group = (position, _Rows(file, position, column))
        return self._group[1]

    def rows(self, position: int) -> list[Row]:
        file = pq.ParquetFile(self._handle)
        column = audio_column(file.schema_arrow, self._asked)
        assert column is not None, "the listing has seen it"
        field = file.schema_arrow.field(column)
        has_path = pa.types.is_struct(field.type) and field.type.get_field_index("path") >= 0
        plain_columns = [c.name for c in file.schema_arrow if c.name != column and _is_plain(c.type)]
        wanted = plain_columns + ([f"{column}.path"] if has_path else [])
        if not wanted:
            return [Row()] * file.metadata.row_group(position).num_rows
        names = _class_names(file.schema_arrow)
        rows = file.read_row_group(position, columns=wanted).to_pylist()
        return [_row({name: _named(value, names.get(name)) for name, value in row.items()}, column) for row in rows]

    def sidecar(self, kind: str, sidecar: Sidecar) -> bytes:
        raise AssertionError("texts are columns")

    def close(self) -> None:
        self._handle.close()


def _class_names(arrow: pa.Schema) -> dict[str, list[str]]:
    """Names of the classes of each column that holds their numbers. Source: `datasets.ClassLabel`, in the metadata of a shard."""
    try:
        values = json.loads((arrow.metadata or {}).get(b"huggingface", b"{}"))
        features = values["info"]["features"].items()
        return {name: list(each["names"]) for name, each in features if each.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _is_plain(kind: Any) -> bool:
    """Text, numbers and truth values; the rest would be too large to keep beside every recording."""
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_text or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _row(values: dict[str, Any], column: str) -> Row:
    path = (values.pop(column, None) or {}).get("path")
    texts = [values.pop(name, None) for name in _TEXT_COLUMNS]
    languages = [values.pop(name, None) for name in _LANGUAGE_COLUMNS]
    durations = [values.pop(name, None) for name in _DURATION_COLUMNS]
    extra = {name: value for name, value in values.items() if value is not None}
    return Row(
        name=posixpath.basename(path) if path else None,
        reference=next((str(text) for text in texts if text is not None), None),
        language=next((str(language) for language in languages if language), None),
        duration_s=next((float(duration) for duration in durations if isinstance(duration, (int, float))), None),
        metadata=json.dumps(extra, ensure_ascii=False) if extra else None,
    )


def confined(path: str, shard: Place) -> Place:
    """A path that a shard names, relative to the shard's folder and not outside of it.

    Raises:
        InputError: it leaves the folder.
    """
    normal = posixpath.normpath(path)
    if posixpath.isabs(normal) or normal.startswith("..") or "://" in path:
        raise InputError(f"{shard.url}: row names {path!r}, outside the shard's folder")
    return Place(posixpath.dirname(shard.url) or ".", shard.options).join(normal)


PARQUET = Shard(
    kinds=(KIND, GROUP),
    is_one=lambda name: name.lower().endswith(".parquet"),
    entries=list_parquet,
    opened=OpenParquet,
    missing="no audio column; expected struct<bytes, path> or a binary column (--audio-column names it)",
)
