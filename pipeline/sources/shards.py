"""Shards: one object that holds many recordings (tar in WebDataset layout, Parquet with audio bytes).

Listing reads tar headers and Parquet metadata, never audio. Members are read in place by offset and never
unpacked to disk, so no member name can point outside.
"""

from __future__ import annotations

import io
import lzma
import posixpath
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from audiomill.errors import InputError
from audiomill.sources.entry import AUDIO_SUFFIXES, Entry, Sidecar, stem, suffix
from audiomill.storage.fs import Place

SIDECAR_SUFFIXES = ("txt", "json")
TAR_SUFFIXES = (".tar",)
COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
HEADER_BLOCK_BYTES = 1 << 16
MAX_SIDECAR_BYTES = 1 << 20
AUDIO_COLUMNS = ("audio", "bytes", "wav", "flac", "mp3", "audio_bytes", "content", "speech")
TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text", "reference")
PLAIN_COLUMNS = ("duration", "language", "lang", "id", "speaker_id", "file")


class Window(io.RawIOBase):
    """A read-only view of `size` bytes of an open file, from `start`."""

    def __init__(self, handle: IO[bytes], start: int, size: int) -> None:
        self._handle, self._start, self._size, self._at = handle, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        self._handle.seek(self._start + self._at)
        content = self._handle.read(count)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def is_tar(name: str) -> bool:
    return name.lower().endswith((*TAR_SUFFIXES, *COMPRESSED_TAR_SUFFIXES))


class _Member(NamedTuple):
    """A file in a tar. `position`: byte offset, or its number where the tar is compressed; `text`: of a sidecar there."""

    name: str
    position: int
    size: int
    text: str | None


def list_tar(place: Place, source: str) -> Iterator[Entry]:
    """Audio members of a tar with the .txt and .json of the same stem beside them, in tar order.

    A tar that breaks off gives its readable members and one entry with reason `unreadable_shard`.
    """
    is_compressed = place.url.lower().endswith(COMPRESSED_TAR_SUFFIXES)
    with place.open(HEADER_BLOCK_BYTES) as handle:
        members, problem = _members(handle, is_compressed)
    beside: defaultdict[str, list[_Member]] = defaultdict(list)
    for member in members:
        if suffix(member.name) in SIDECAR_SUFFIXES and member.size <= MAX_SIDECAR_BYTES:
            beside[stem(member.name)].append(member)
    seen: Counter[str] = Counter()
    for member in members:
        if suffix(member.name) not in AUDIO_SUFFIXES:
            continue
        seen[member.name] += 1
        name = member.name if seen[member.name] == 1 else f"{member.name}#{seen[member.name]}"
        entry = Entry(source, name, "tarz" if is_compressed else "tar", member.position, member.size)
        texts = beside.get(stem(member.name), [])
        if is_compressed:
            found = {suffix(text.name): text.text for text in texts}
            yield entry._replace(reference=found.get("txt"), metadata=found.get("json"))
        else:
            yield entry._replace(sidecars=tuple(Sidecar(suffix(t.name), t.position, t.size) for t in texts) or None)
    if problem:
        detail = f"expected a tar archive, got: {problem}; the {len(members)} members before that are used"
        yield Entry(source, "", "tar", reason="unreadable_shard", detail=detail)


def _members(handle: IO[bytes], is_compressed: bool) -> tuple[list[_Member], str | None]:
    """Files of a tar, and what is wrong with it. Texts in a compressed one are read now: later means again."""
    members: list[_Member] = []
    try:
        with tarfile.open(fileobj=handle, mode="r|*" if is_compressed else "r:") as shard:
            while (each := shard.next()) is not None:
                shard.members = []  # type: ignore[attr-defined]  # tarfile would keep every header it has seen
                if not each.isfile():
                    continue
                content = None
                if is_compressed and suffix(each.name) in SIDECAR_SUFFIXES and each.size <= MAX_SIDECAR_BYTES:
                    content = shard.extractfile(each)
                text = content.read().decode("utf-8-sig", "replace").strip() if content is not None else None
                members.append(_Member(each.name, len(members) if is_compressed else each.offset_data, each.size, text))
            return members, None if is_compressed else _tail_problem(handle, shard.offset)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        return members, str(error)


def _tail_problem(handle: IO[bytes], offset: int) -> str | None:
    """tarfile takes a broken header for the end; the end is a block of zeros, or nothing at all."""
    handle.seek(offset)
    tail = handle.read(tarfile.BLOCKSIZE)
    return f"no valid header at byte {offset}" if tail.strip(b"\0") else None


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
            [Entry(source, "", "parquet", reason="unreadable_shard", detail=f"expected a Parquet file, got: {error}")]
        )
    if audio_column(arrow) is None:
        return None
    return _parquet_rows(place, source)


def audio_column(arrow: pa.Schema) -> str | None:
    """The column with encoded audio: a struct with `bytes`, or a binary one with a usual name."""
    for column in arrow:
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            return str(column.name)
    binaries = [c.name for c in arrow if pa.types.is_binary(c.type) or pa.types.is_large_binary(c.type)]
    return next((name for name in AUDIO_COLUMNS if name in binaries), binaries[0] if len(binaries) == 1 else None)


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
                    "parquet",
                    group,
                    row,
                    duration_s=float(duration) if isinstance(duration, (int, float)) else None,
                    reference=values.get(texts[0]) if texts else None,
                    language=values.get("language") or values.get("lang"),
                )


class ShardReader:
    """Opens planned members; keeps the last shard open, because a part reads its members in order."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._name: tuple[str, str] | None = None
        self._handle: IO[bytes] | None = None
        self._stream: tarfile.TarFile | None = None
        self._stream_at = 0
        self._group: tuple[int, pa.Table] | None = None

    def open(self, source: str, kind: str, position: int, size: int | None) -> IO[bytes]:
        """Encoded bytes of one recording as a seekable file. `position`, `size`: as in `schema.PLAN`."""
        place = Place(source, self._options)
        if kind == "file":
            return place.open()
        if self._name != (source, kind) or self._handle is None:
            self.close()
            self._handle, self._name = place.open(), (source, kind)
        if kind == "tar":
            assert size is not None
            return io.BufferedReader(Window(self._handle, position, size), 1 << 16)
        if kind == "tarz":
            return self._compressed_member(position)
        assert kind == "parquet" and size is not None
        return self._parquet_row(position, size, place)

    def sidecar(self, source: str, kind: str, sidecar: Sidecar) -> bytes:
        """Bytes of the text beside a recording."""
        if kind == "file":
            return Place(f"{stem(source)}.{sidecar.kind}", self._options).read()
        with self.open(source, kind, sidecar.position, sidecar.size) as handle:
            return handle.read()

    def close(self) -> None:
        for each in (self._stream, self._handle):
            if each is not None:
                each.close()
        self._name = self._handle = self._stream = self._group = None
        self._stream_at = 0

    def _compressed_member(self, index: int) -> IO[bytes]:
        """A compressed tar can only be read forwards; going back starts over."""
        assert self._handle is not None
        if self._stream is None or index < self._stream_at:
            self._handle.seek(0)
            self._stream, self._stream_at = tarfile.open(fileobj=self._handle, mode="r|*"), 0  # noqa: SIM115  (closed by close)
        while (member := self._stream.next()) is not None:
            self._stream.members = []  # type: ignore[attr-defined]
            if not member.isfile():
                continue
            self._stream_at += 1
            if self._stream_at == index + 1:
                content = self._stream.extractfile(member)
                assert content is not None
                return io.BytesIO(content.read())
        raise FileNotFoundError(f"member {index} is gone from the archive")

    def _parquet_row(self, group: int, row: int, place: Place) -> IO[bytes]:
        assert self._handle is not None
        if self._group is None or self._group[0] != group:
            file = pq.ParquetFile(self._handle)
            self._group = (group, file.read_row_group(group, columns=[audio_column(file.schema_arrow)]))
        value = self._group[1].column(0)[row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None and isinstance(value, dict) and value.get("path"):
            return confined(value["path"], place).open()
        return io.BytesIO(content or b"")


def confined(path: str, shard: Place) -> Place:
    """A path that a shard names, relative to the shard's folder and not outside of it.

    Raises:
        InputError: it leaves the folder.
    """
    normal = posixpath.normpath(path)
    if posixpath.isabs(normal) or normal.startswith("..") or "://" in path:
        raise InputError(f"{shard.url}: row names {path!r}, outside the shard's folder")
    return Place(posixpath.dirname(shard.url) or ".", shard.options).join(normal)
