"""Parquet shards with encoded audio: `struct<bytes, path>` (Hugging Face) or a binary column."""

from __future__ import annotations

import io
import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from audiomill.errors import InputError
from audiomill.sources.entry import Entry, Sidecar
from audiomill.sources.shard import Shard
from audiomill.storage.fs import Place

KIND = "parquet"
AUDIO_COLUMNS = ("audio", "bytes", "wav", "flac", "mp3", "audio_bytes", "content", "speech")
TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text", "reference")
OTHER_MEDIA = ("image", "img", "video", "png", "jpg", "jpeg", "thumbnail", "mask", "embedding", "envelope")
"""Words in the names of columns that hold something else."""
PLAIN_COLUMNS = ("duration", "language", "lang", "id", "speaker_id", "file")


class SeveralColumns(InputError):
    """More than one column may be the audio."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"expected one column with audio, or one named audio, got {', '.join(names)}; rename the one")


def list_parquet(place: Place, source: str) -> Iterator[Entry] | None:
    """Rows of a Parquet shard with audio bytes (`struct<bytes, path>` or a binary column).

    Returns:
        None if it has no audio column (it is some other table).
    """
    try:
        with place.open() as handle:
            file = pq.ParquetFile(handle)
            arrow = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        return iter(
            [Entry(source, "", KIND, reason="unreadable_shard", detail=f"expected a Parquet file, got: {error}")]
        )
    try:
        if audio_column(arrow) is None:
            return None
    except SeveralColumns as several:
        return iter([Entry(source, "", KIND, reason="unreadable_shard", detail=str(several))])
    return _parquet_rows(place, source)


def audio_column(arrow: pa.Schema) -> str | None:
    """The column with encoded audio: a struct with `bytes`, or else bytes; of several the one with a usual name."""
    structs = [c.name for c in arrow if pa.types.is_struct(c.type) and c.type.get_field_index("bytes") >= 0]
    binaries = [c.name for c in arrow if _holds_bytes(c.type)]
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


def _parquet_rows(place: Place, source: str) -> Iterator[Entry]:
    with place.open() as handle:
        file = pq.ParquetFile(handle)
        column = audio_column(file.schema_arrow)
        field = file.schema_arrow.field(column)
        is_struct = pa.types.is_struct(field.type)
        has_path = is_struct and field.type.get_field_index("path") >= 0
        texts = [c for c in TEXT_COLUMNS if c in file.schema_arrow.names]
        plain = [c for c in PLAIN_COLUMNS if c in file.schema_arrow.names and c != column]
        wanted = texts[:1] + plain + ([f"{column}.path"] if has_path else [])
        seen: Counter[str] = Counter()
        for group in range(file.num_row_groups):
            rows = (
                file.read_row_group(group, columns=wanted).to_pylist()
                if wanted
                else [{}] * file.metadata.row_group(group).num_rows
            )
            for row, values in enumerate(rows):
                name = (values.get(column) or {}).get("path") if has_path else None
                name = posixpath.basename(name) if name else f"row-{group}-{row}"
                seen[name] += 1
                member = name if seen[name] == 1 else f"{name}#{seen[name]}"
                duration = values.get("duration")
                yield Entry(
                    source,
                    member,
                    KIND,
                    group,
                    row,
                    duration_s=float(duration) if isinstance(duration, (int, float)) else None,
                    reference=values.get(texts[0]) if texts else None,
                    language=values.get("language") or values.get("lang"),
                )


class _OpenParquet:
    """See `OpenShard`; keeps the last row group."""

    def __init__(self, place: Place) -> None:
        self._place, self._handle = place, place.open()
        self._group: tuple[int, pa.Table] | None = None

    def member(self, kind: str, position: int, size: int | None) -> IO[bytes]:
        assert size is not None, "the row in its group"
        if self._group is None or self._group[0] != position:
            file = pq.ParquetFile(self._handle)
            self._group = (position, file.read_row_group(position, columns=[audio_column(file.schema_arrow)]))
        value = self._group[1].column(0)[size].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        content = bytes(content) if isinstance(content, list) else content
        if content is None and isinstance(value, dict) and value.get("path"):
            return confined(value["path"], self._place).open()
        return io.BytesIO(content or b"")

    def sidecar(self, kind: str, sidecar: Sidecar) -> bytes:
        raise AssertionError("texts are columns")

    def close(self) -> None:
        self._handle.close()


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
    kinds=(KIND,),
    is_one=lambda name: name.lower().endswith(".parquet"),
    entries=list_parquet,
    opened=_OpenParquet,
    missing="no audio column; expected struct<bytes, path> or a binary column",
)
