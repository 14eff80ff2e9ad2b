"""Zip archives: members as those of a tar, `.txt` and `.json` of the same stem beside them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO

from audiomill.sources.entry import AUDIO_SUFFIXES, Entry, Sidecar, is_hidden, stem, suffix
from audiomill.sources.shard import MAX_SIDECAR_BYTES, SIDECAR_SUFFIXES, Shard
from audiomill.storage.fs import Place

KIND = "zip"
BUFFER_BYTES = 1 << 16


def list_zip(place: Place, source: str, column: str | None = None) -> Iterator[Entry]:
    """Audio members of a zip in its order. `position`: number of the member in the archive's directory."""
    try:
        with place.open(BUFFER_BYTES) as handle, zipfile.ZipFile(handle) as archive:
            members = list(enumerate(archive.infolist()))
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        detail = f"expected a zip archive, got: {error}"
        yield Entry(source, "", KIND, reason="unreadable_shard", detail=detail)
        return
    texts = {
        each.filename: Sidecar(suffix(each.filename), number, each.file_size)
        for number, each in members
        if suffix(each.filename) in SIDECAR_SUFFIXES and each.file_size <= MAX_SIDECAR_BYTES
    }
    seen: Counter[str] = Counter()
    for number, each in members:
        if each.is_dir() or suffix(each.filename) not in AUDIO_SUFFIXES or is_hidden(each.filename):
            continue
        seen[each.filename] += 1
        name = each.filename if seen[each.filename] == 1 else f"{each.filename}#{seen[each.filename]}"
        if each.flag_bits & 1:
            detail = "expected a plain member, got an encrypted one; unpack the archive with its password"
            yield Entry(source, name, KIND, reason="unreadable", detail=detail)
            continue
        beside = tuple(result for kind in SIDECAR_SUFFIXES if (result := texts.get(f"{stem(each.filename)}.{kind}")))
        yield Entry(source, name, KIND, number, each.file_size, sidecars=beside or None)


class _OpenZip:
    """See `OpenShard`."""

    def __init__(self, place: Place, column: str | None = None) -> None:
        self._handle = place.open()
        try:
            self._archive = zipfile.ZipFile(self._handle)
        except zipfile.BadZipFile as error:
            raise OSError(f"{error}: the archive has changed since it was listed") from error

    def member(self, kind: str, position: int, size: int | None) -> IO[bytes]:
        members = self._archive.infolist()
        if position >= len(members) or members[position].file_size != size:
            raise OSError(f"no member of {size} bytes at {position}: the archive has changed since it was listed")
        return io.BufferedReader(_Member(self._archive, members[position]), BUFFER_BYTES)  # type: ignore[type-var]

    def sidecar(self, kind: str, sidecar: Sidecar) -> bytes:
        with self.member(kind, sidecar.position, sidecar.size) as handle:
            return handle.read(MAX_SIDECAR_BYTES)

    def close(self) -> None:
        self._archive.close()
        self._handle.close()


class _Member(io.RawIOBase):
    """A member as a seekable file; what is wrong with its compression is an error of reading."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        try:
            self._stream = archive.open(member)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise OSError(f"{member.filename}: {error}") from error
        self._size = member.file_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        try:
            content = self._stream.read(min(len(buffer), self._size))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise OSError(f"{self._stream.name}: {error}") from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


ZIP = Shard(
    kinds=(KIND,),
    is_one=lambda name: name.lower().endswith(".zip"),
    entries=list_zip,
    opened=_OpenZip,
    knows_size=(KIND,),
    header_is_cheap=(KIND,),
)
