"""Tar shards in WebDataset layout, plain and compressed: `.txt` and `.json` of the same stem belong to the audio."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import posixpath
import sys
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import IO, NamedTuple

import pyarrow as pa

from audiomill.audio.links import Window
from audiomill.sources.entry import AUDIO_SUFFIXES, Entry, Sidecar, is_hidden, stem, suffix
from audiomill.sources.manifest_row import Note
from audiomill.sources.shard import MAX_SIDECAR_BYTES, SIDECAR_SUFFIXES, Shard
from audiomill.storage.fs import Place
from audiomill.storage.urls import path_of
from audiomill.text.encodings import TRANSCRIPT_SUFFIXES, UnknownEncoding, decoded, transcript_lines

PLAIN, COMPRESSED = "tar", "tarz"
TAR_SUFFIXES = (".tar",)
COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
HEADER_BLOCK_BYTES = 1 << 16


def is_tar(name: str) -> bool:
    return name.lower().endswith((*TAR_SUFFIXES, *COMPRESSED_TAR_SUFFIXES))


class _Member(NamedTuple):
    """A file in a tar. `position`: byte offset of its content, uncompressed; `text`: of a sidecar in a compressed one;
    zlib-compressed, so that many take no more memory than the archive; `problem`: why it cannot be read."""

    name: str
    position: int
    size: int
    text: bytes | None = None
    problem: str | None = None


def list_tar(place: Place, source: str, column: str | None = None) -> Iterator[Entry | Note]:
    """Audio members of a tar with the .txt and .json of the same stem beside them, in tar order.

    A link is a recording of its own, with the content that it leads to inside the tar. A tar that breaks off gives its
    readable members and one entry with reason `unreadable_shard`.
    """
    is_compressed = path_of(place.url).lower().endswith(COMPRESSED_TAR_SUFFIXES)
    with place.open(HEADER_BLOCK_BYTES) as handle:
        members, problem = _members(handle, is_compressed)
    beside: defaultdict[str, list[_Member]] = defaultdict(list)
    lines = {} if is_compressed else _transcripts(place, members)
    for member in members:
        if suffix(member.name) in SIDECAR_SUFFIXES and member.size <= MAX_SIDECAR_BYTES and member.problem is None:
            beside[stem(member.name)].append(member)
    seen: Counter[str] = Counter()
    kind = COMPRESSED if is_compressed else PLAIN
    for member in members:
        if suffix(member.name) not in AUDIO_SUFFIXES or is_hidden(member.name):
            continue
        seen[member.name] += 1
        name = member.name if seen[member.name] == 1 else f"{member.name}#{seen[member.name]}"
        if member.problem is not None:
            yield Entry(source, name, kind, reason="unreadable", detail=member.problem)
            continue
        entry = Entry(source, name, kind, member.position, member.size)
        texts = beside.get(stem(member.name), [])
        if is_compressed:
            result, notes = _texts(texts)
            yield from notes
            yield entry._replace(reference=result.get("txt"), metadata=result.get("json"))
        else:
            beside_it = tuple(Sidecar(suffix(t.name), t.position, t.size) for t in texts) or None
            yield entry._replace(sidecars=beside_it, reference=lines.get(stem(member.name)))
    if problem:
        detail = f"expected a tar archive, got: {problem}; the {len(members)} members before that are used"
        yield Entry(source, "", PLAIN, reason="unreadable_shard", detail=detail)


def _texts(members: list[_Member]) -> tuple[dict[str, str], list[Note]]:
    """Texts of a recording by kind, and what is said of those that are not UTF-8."""
    results: dict[str, str] = {}
    notes = []
    for member in members:
        assert member.text is not None, "read with the compressed archive"
        try:
            text, note = decoded(zlib.decompress(member.text))
        except UnknownEncoding as unknown:
            notes.append(Note(f"{member.name}: its text is left out: {unknown}"))
            continue
        results[suffix(member.name)] = text.strip()
        notes += [Note(f"{member.name}: {note}")] if note else []
    return results, notes


def _transcripts(place: Place, members: list[_Member]) -> dict[str, str]:
    """LibriSpeech's texts by stem of the recording, from the `.trans.txt` of each folder in a tar."""
    transcripts: dict[str, str] = {}
    files = [
        member for member in members if member.name.endswith(TRANSCRIPT_SUFFIXES) and member.size <= MAX_SIDECAR_BYTES
    ]
    if files:
        with place.open(HEADER_BLOCK_BYTES) as handle:
            for file in files:
                handle.seek(file.position)
                folder = posixpath.dirname(file.name)
                with contextlib.suppress(UnknownEncoding):
                    lines = transcript_lines(handle.read(file.size))
                    transcripts |= {posixpath.join(folder, name): text for name, text in lines.items()}
    return transcripts


def _members(handle: IO[bytes], is_compressed: bool) -> tuple[list[_Member], str | None]:
    """Files of a tar (or of several, one behind the other), and what is wrong with it. Texts in a compressed one are read
    now: later means again."""
    members: list[_Member] = []
    links: list[tuple[int, tarfile.TarInfo]] = []
    try:
        stream = _plain(handle) if is_compressed else handle
        while True:
            with tarfile.open(fileobj=stream, mode="r:") as shard:
                while (each := shard.next()) is not None:
                    shard.members = []  # type: ignore[attr-defined]  # tarfile would keep every header it has seen
                    if each.islnk() or each.issym():
                        links.append((len(members), each))
                        members.append(_Member(each.name, 0, 0))
                    elif each.isfile():
                        members.append(_member(each, shard, is_compressed))
                end = shard.offset
            begin, problem = _next_archive(stream, end)
            if begin is None:
                return _resolved(members, links), problem
            stream.seek(begin)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        return _resolved(members, links), str(error)


def _member(each: tarfile.TarInfo, shard: tarfile.TarFile, is_compressed: bool) -> _Member:
    if each.issparse():
        return _Member(each.name, 0, 0, problem="expected plain content, got a sparse member; pack it without --sparse")
    text = None
    if is_compressed and suffix(each.name) in SIDECAR_SUFFIXES and each.size <= MAX_SIDECAR_BYTES:
        content = shard.extractfile(each)
        text = zlib.compress(content.read(), 1) if content is not None else None
    return _Member(each.name, each.offset_data, each.size, text)


def _resolved(members: list[_Member], links: list[tuple[int, tarfile.TarInfo]]) -> list[_Member]:
    """Links with the content that they lead to; links to links, and out of the tar, say so."""
    numbers = {number for number, _ in links}
    by_name = {posixpath.normpath(m.name): m for number, m in enumerate(members) if number not in numbers}
    for number, link in links:
        at = link.linkname if link.islnk() else posixpath.join(posixpath.dirname(link.name), link.linkname)
        target = by_name.get(posixpath.normpath(at))
        if target is None:
            problem = f"expected a link to a file of this tar, got {link.linkname!r}"
            members[number] = _Member(link.name, 0, 0, problem=problem)
        else:
            members[number] = target._replace(name=link.name)
    return members


def _next_archive(handle: IO[bytes], offset: int) -> tuple[int | None, str | None]:
    """Where another tar begins behind this one's end, and what is wrong there. The end is blocks of zeros, or nothing."""
    handle.seek(offset)
    while block := handle.read(tarfile.BLOCKSIZE):
        if block.strip(b"\0"):
            try:
                tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
            except tarfile.HeaderError:
                return None, f"no valid header at byte {offset}"
            return offset, None
        offset += len(block)
    return None, None


def _plain(handle: IO[bytes]) -> IO[bytes]:
    """The tar inside a compressed file, which may have been compressed in several pieces."""
    magic = handle.read(6)
    handle.seek(0)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(handle)
    if magic.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(handle)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _Zstandard(handle)  # type: ignore[return-value]
    return gzip.GzipFile(fileobj=handle)  # type: ignore[return-value]


class _Zstandard(io.RawIOBase):
    """The content of a Zstandard file; backwards it is read from its start."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._restart()

    def _restart(self) -> None:
        self._handle.seek(0)
        whole = io.BufferedReader(Window(self._handle, 0, sys.maxsize))  # pyarrow closes what it is given
        self._at, self._stream = 0, pa.CompressedInputStream(pa.PythonFile(whole, "r"), "zstd")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        wanted = offset + (self._at if whence == io.SEEK_CUR else 0)
        assert whence != io.SEEK_END, "nobody knows the end"
        if wanted < self._at:
            self._restart()
        while self._at < wanted and (content := self._stream.read(min(wanted - self._at, HEADER_BLOCK_BYTES))):
            self._at += len(content)
        return self._at


class _OpenTar:
    """See `OpenShard`."""

    def __init__(self, place: Place, column: str | None = None) -> None:
        self._handle = place.open()
        self._stream: IO[bytes] | None = None

    def member(self, kind: str, position: int, size: int | None) -> IO[bytes]:
        assert size is not None, "the listing knows it"
        if kind == COMPRESSED:  # forwards without a cost; backwards it is read from its start
            self._stream = self._stream or _plain(self._handle)
            return io.BytesIO(Window(self._stream, position, size).readall())
        self._check(position, size)
        return io.BufferedReader(Window(self._handle, position, size), 1 << 16)

    def _check(self, position: int, size: int) -> None:
        """Raises OSError where there is no member of that size any more: the archive was packed anew meanwhile."""
        self._handle.seek(position - tarfile.BLOCKSIZE)
        header = self._handle.read(tarfile.BLOCKSIZE)
        try:
            result = tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape").size
        except tarfile.HeaderError as error:
            raise OSError(f"no member at byte {position} ({error}): the tar has changed since it was listed") from error
        if result != size and result != 0:  # a pax header may hold the size
            raise OSError(f"{result} bytes at byte {position}, not {size}: the tar has changed since it was listed")

    def sidecar(self, kind: str, sidecar: Sidecar) -> bytes:
        with self.member(kind, sidecar.position, sidecar.size) as handle:
            return handle.read()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._handle.close()


TAR = Shard(
    kinds=(PLAIN, COMPRESSED),
    is_one=is_tar,
    entries=list_tar,
    opened=_OpenTar,
    knows_size=(PLAIN, COMPRESSED),
    header_is_cheap=(PLAIN,),
)
