"""Tar shards in WebDataset layout, plain and compressed: `.txt` and `.json` of the same stem belong to the audio."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from audiomill.sources.entry import AUDIO_SUFFIXES, Entry, Sidecar, stem, suffix
from audiomill.sources.shard import MAX_SIDECAR_BYTES, SIDECAR_SUFFIXES, Shard
from audiomill.storage.fs import Place

PLAIN, COMPRESSED = "tar", "tarz"
TAR_SUFFIXES = (".tar",)
COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
HEADER_BLOCK_BYTES = 1 << 16


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
        entry = Entry(source, name, COMPRESSED if is_compressed else PLAIN, member.position, member.size)
        texts = beside.get(stem(member.name), [])
        if is_compressed:
            found = {suffix(text.name): text.text for text in texts}
            yield entry._replace(reference=found.get("txt"), metadata=found.get("json"))
        else:
            yield entry._replace(sidecars=tuple(Sidecar(suffix(t.name), t.position, t.size) for t in texts) or None)
    if problem:
        detail = f"expected a tar archive, got: {problem}; the {len(members)} members before that are used"
        yield Entry(source, "", PLAIN, reason="unreadable_shard", detail=detail)


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


class _OpenTar:
    """See `OpenShard`."""

    def __init__(self, place: Place) -> None:
        self._handle = place.open()
        self._stream: tarfile.TarFile | None = None
        self._stream_at = 0

    def member(self, kind: str, position: int, size: int | None) -> IO[bytes]:
        if kind == COMPRESSED:
            return self._compressed_member(position)
        assert size is not None, "the listing knows it"
        return io.BufferedReader(Window(self._handle, position, size), 1 << 16)

    def sidecar(self, kind: str, sidecar: Sidecar) -> bytes:
        with self.member(kind, sidecar.position, sidecar.size) as handle:
            return handle.read()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._handle.close()

    def _compressed_member(self, index: int) -> IO[bytes]:
        """A compressed tar can only be read forwards; going back starts over."""
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


TAR = Shard(
    kinds=(PLAIN, COMPRESSED),
    is_one=is_tar,
    entries=list_tar,
    opened=_OpenTar,
    knows_size=(PLAIN, COMPRESSED),
    header_is_cheap=(PLAIN,),
)
