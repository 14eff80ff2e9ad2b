"""How many frames a header states: libsndfile hides it where the data is cut short. None where nobody knew."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator
from typing import IO

from audiomill.audio.headers import wav

AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Of a sample, by encoding."""
W64_HEADER_BYTES = 24
"""Name and size of a chunk, which its size counts too."""
NIST_COUNT = re.compile(rb"sample_count -i (\d+)")


def stated_frames(handle: IO[bytes], head: bytes) -> int | None:
    """Frames by the header. The handle's position is kept.

    Args:
        handle: the file.
        head: its first bytes.
    """
    at = handle.tell()
    try:
        state = STATES.get(head[:4])
        return None if state is None else state(handle)
    except (struct.error, ZeroDivisionError):
        return None
    finally:
        handle.seek(at)


def _of_aiff(handle: IO[bytes]) -> int | None:
    """Source: Apple, "Audio Interchange File Format", COMM chunk."""
    for name, content in _big_endian_chunks(handle):
        if name == b"COMM":
            channels, frames, bits = struct.unpack_from(">hIh", content)
            return _unless_placeholder(frames, channels * -(-bits // 8))
    return None


def _big_endian_chunks(handle: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Name and first bytes of each chunk."""
    handle.seek(12)
    while len(chunk := handle.read(8)) == 8:
        name, size = struct.unpack(">4sI", chunk)
        start = handle.tell()
        yield name, handle.read(min(size, 64))
        handle.seek(start + size + size % 2)


def _of_au(handle: IO[bytes]) -> int | None:
    handle.seek(0)
    head = handle.read(24)
    order = ">" if head[:4] == b".snd" else "<"
    _, size, encoding, _, channels = struct.unpack_from(f"{order}5I", head, 4)
    width = AU_BYTES.get(encoding, 0) * channels
    return _unless_placeholder(size // width, width)


def _of_rf64(handle: IO[bytes]) -> int | None:
    """Source: EBU Tech 3306, ds64 chunk: sizes of the file and of its data, in 64 bits."""
    handle.seek(12)
    name, _, _, size = struct.unpack("<4sIQQ", handle.read(24))
    width = wav.block_align(handle)
    return None if name != b"ds64" or not 0 < size < 1 << 62 else int(size // width)


def _of_w64(handle: IO[bytes]) -> int | None:
    """Source: Sony, "Wave64": chunks named by 16 bytes, sizes in 64 bits, at multiples of 8."""
    handle.seek(40)
    width = 0
    while len(chunk := handle.read(W64_HEADER_BYTES)) == W64_HEADER_BYTES:
        name, size = struct.unpack("<4s12xQ", chunk)
        if name == b"fmt ":
            width = struct.unpack_from("<12xH", handle.read(14))[0]
            handle.seek(-14, io.SEEK_CUR)
        elif name == b"data":
            return int((size - W64_HEADER_BYTES) // width) if W64_HEADER_BYTES < size < 1 << 62 else None
        handle.seek(-(-size // 8) * 8 - W64_HEADER_BYTES, io.SEEK_CUR)
    return None


def _of_nist(handle: IO[bytes]) -> int | None:
    handle.seek(0)
    match = NIST_COUNT.search(handle.read(1024))
    return None if match is None else int(match.group(1)) or None


def _of_caf(handle: IO[bytes]) -> int | None:
    """Source: Apple, "Core Audio Format": chunks with sizes in 64 bits, -1 for data that goes on to the end of the file; the
    data begins with a count of edits."""
    handle.seek(8)
    width = 0
    while len(chunk := handle.read(12)) == 12:
        name, size = struct.unpack(">4sq", chunk)
        if name == b"desc":
            width = struct.unpack_from(">16xI", handle.read(20))[0]
            handle.seek(-20, io.SEEK_CUR)
        elif name == b"data":
            return None if size < 4 or not width else _unless_placeholder((size - 4) // width, width)
        handle.seek(size, io.SEEK_CUR)
    return None


def _of_voc(handle: IO[bytes]) -> int | None:
    """Source: "Creative Voice File": blocks with sizes in 24 bits. The first one with sound counts, as libsndfile reads it."""
    handle.seek(20)
    handle.seek(struct.unpack("<H", handle.read(2))[0])
    while len(chunk := handle.read(4)) == 4:
        kind, size = chunk[0], int.from_bytes(chunk[1:], "little")
        if kind == 1:  # rate, codec, then one channel of 8 bits
            return size - 2
        if kind == 9:  # rate in 4 bytes, bits, channels, codec and 4 bytes of nothing
            bits, channels = struct.unpack_from("<4xBB", handle.read(6))
            return int((size - 12) // (bits // 8 * channels))
        handle.seek(size, io.SEEK_CUR)
    return None


def _unless_placeholder(frames: int, width: int) -> int | None:
    """None for sizes that writers to a pipe leave."""
    if not width or wav.is_placeholder(frames) or wav.is_placeholder(frames * width):
        return None
    return frames


STATES: dict[bytes, Callable[[IO[bytes]], int | None]] = {
    b"RIFF": wav.wav_stated_frames,
    b"FORM": _of_aiff,
    b".snd": _of_au,
    b"dns.": _of_au,
    b"RF64": _of_rf64,
    b"riff": _of_w64,
    b"NIST": _of_nist,
    b"caff": _of_caf,
    b"Crea": _of_voc,
}
"""Kinds of which the header is read here, by the first bytes of a file."""
