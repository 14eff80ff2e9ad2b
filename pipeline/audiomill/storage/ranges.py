"""Remote files over HTTP, also from servers that know no ranges."""

from __future__ import annotations

import io
import shutil
import tempfile
from typing import IO, Any

COPIED_AT_ONCE = 1 << 20


class RangesOrWhole(io.RawIOBase):
    """A remote file by ranges; where the server gives whole files whatever is asked, a copy of it on disk."""

    def __init__(self, handle: IO[bytes], fs: Any, path: str) -> None:
        self._handle, self._fs, self._path, self._at = handle, fs, path, 0
        self._is_whole = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._read(len(buffer))
        except ValueError:  # "Got more bytes than requested", or a stream that cannot be sought
            self._fetch()
            content = self._read(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            if getattr(self._handle, "size", None) is None and not self._is_whole:
                self._fetch()
            end = self._handle.seek(0, io.SEEK_END) if self._is_whole else self._handle.size  # type: ignore[attr-defined]
            self._at = max(0, end + offset)
        else:
            self._at = max(0, offset + (self._at if whence == io.SEEK_CUR else 0))
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            self._handle.close()
        super().close()

    def _read(self, count: int) -> bytes:
        self._handle.seek(self._at)
        return bytes(self._handle.read(count))

    def _fetch(self) -> None:
        self._handle.close()
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this file
        with self._fs.open(self._path, "rb", block_size=0) as stream:
            shutil.copyfileobj(stream, copy, COPIED_AT_ONCE)
        self._handle, self._is_whole = copy, True
