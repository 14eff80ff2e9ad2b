"""What a WAV header says: libsndfile hides it where the data is cut short."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO

FIXED_SIZE_TAGS = (1, 3, 6, 7, 0xFFFE)
"""PCM, float, A-law, mu-law, extensible: the same number of bytes a frame."""
PLACEHOLDERS = (0, 1 << 31, 1 << 32)
PLACEHOLDER_MARGIN = 1 << 16
"""Writers to a pipe, or killed ones, leave a size of 0, or one just below or at 2 or 4 GiB: 0x7ffff000 (SoX), 0x80000000
(arecord), 0xffffffff, each less the header."""


def is_placeholder(size: int) -> bool:
    """Whether a stated size of data means that nobody knew it."""
    return any(abs(size - each) <= (PLACEHOLDER_MARGIN if each else 0) for each in PLACEHOLDERS)


def is_wav(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WAVE"


def _chunks(handle: IO[bytes]) -> Iterator[tuple[bytes, int, bytes]]:
    """Name, stated size and first bytes of each chunk of a RIFF file."""
    handle.seek(12)
    while len(chunk := handle.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        start = handle.tell()
        yield name, size, handle.read(min(size, 64))
        handle.seek(start + size + size % 2)


def hides_data(handle: IO[bytes]) -> bool:
    """Whether sound follows a data chunk that is said to be empty: its writer never came to fill in the size."""
    at = handle.tell()
    try:
        for name, size, _ in _chunks(handle):
            if name == b"data" and size == 0:
                behind = handle.read(8)
                return len(behind) == 8 and not behind[:4].isalnum()
        return False
    finally:
        handle.seek(at)


def first_data(handle: IO[bytes], count: int) -> bytes:
    """The first bytes of the data chunk of PCM with 16 bits; nothing for other kinds."""
    bits = 0
    for name, _, content in _chunks(handle):
        if name == b"fmt " and len(content) >= 16:
            bits = struct.unpack_from("<H", content, 14)[0] if struct.unpack_from("<H", content)[0] == 1 else 0
        elif name == b"data":
            handle.seek(-len(content), io.SEEK_CUR)
            return handle.read(count) if bits == 16 else b""
    return b""


def wav_bytes_behind(handle: IO[bytes]) -> int:
    """Bytes behind the data chunk that belong to no chunk."""
    size = handle.seek(0, io.SEEK_END)
    for name, num_bytes, content in _chunks(handle):
        if name == b"data":
            behind = handle.tell() - len(content) + num_bytes + num_bytes % 2
            if is_placeholder(num_bytes) or behind >= size:
                return 0
            handle.seek(behind)
            following = handle.read(8)
            is_chunk = len(following) < 8 or all(32 <= byte < 127 for byte in following[:4])
            return 0 if is_chunk or not following.strip(b"\0") else size - behind
    return 0


def stated_format(handle: IO[bytes]) -> tuple[int, int]:
    """Sample rate and channels as the header states them; (0, 0) without a format chunk."""
    for name, _, content in _chunks(handle):
        if name == b"fmt " and len(content) >= 8:
            return struct.unpack_from("<I", content, 4)[0], struct.unpack_from("<H", content, 2)[0]
    return 0, 0


def wav_stated_frames(handle: IO[bytes]) -> int | None:
    """Frames in the data chunk, or by the fact chunk where a frame has no fixed number of bytes; None for placeholders."""
    width = fact = 0
    for name, size, content in _chunks(handle):
        if name == b"fmt " and len(content) >= 14:
            width = _width(content)
        elif name == b"fact" and len(content) >= 4:
            fact = struct.unpack_from("<I", content)[0]
        elif name == b"data":
            frames = size // width if width else fact
            return None if is_placeholder(size) or not frames or (fact and is_placeholder(frames)) else frames
    return None


def block_align(handle: IO[bytes]) -> int:
    """Bytes of a frame; 0 where frames differ or there is no format chunk."""
    return next((_width(content) for name, _, content in _chunks(handle) if name == b"fmt " and len(content) >= 14), 0)


def _width(fmt: bytes) -> int:
    is_fixed = struct.unpack_from("<H", fmt)[0] in FIXED_SIZE_TAGS
    return int(struct.unpack_from("<H", fmt, 12)[0]) if is_fixed else 0
