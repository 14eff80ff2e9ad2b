"""Headers that state less than there is: files that somebody joined, cut or went on writing. And PCM that is none.

A decoder ends where a header says, so what lies behind would be lost without a word.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO

from audiomill.audio.headers import mpeg, wav
from audiomill.audio.links import next_link

TAIL_BYTES = 1 << 16
"""In which the last frame of a FLAC stream begins."""
MIN_BEHIND_S, MIN_LONGER = 1.0, 1.3
"""An estimate that is longer than a tag by less is no proof."""
UNTOLD_LENGTH = "an MPEG stream that does not state its length"
"""Usual; but libsndfile ends where it guesses the end."""
FLAC_BLOCKS = {1: 192, **{n: 576 << (n - 2) for n in range(2, 6)}, **{n: 256 << (n - 8) for n in range(8, 16)}}
"""Samples of a frame by its code; 6 and 7 stand behind the header. Source: RFC 9639, 9.1.1."""
CODED_WORDS = (b"\x72\xf8\x1f\x4e", b"\xfe\x7f\x01\x80", b"\x7f\xfe\x80\x01")
"""IEC 61937 (AC-3 and its kin on a PCM line) and DTS: a bitstream where a header promises samples."""
CODED_SEARCH_BYTES = 1 << 15


def why_not_believed(handle: IO[bytes], head: bytes) -> str | None:
    """Why libsndfile would not give all of a file, or noise; None where it may read it. The position is kept.

    Args:
        handle: the file.
        head: its first bytes.
    """
    at = handle.tell()
    try:
        if wav.is_wav(head):
            return _of_wav(handle)
        if mpeg.is_stream(head):
            return _of_mpeg(handle)
        if head.startswith(b"fLaC"):
            return _of_flac(handle)
        return None
    except (struct.error, IndexError):
        return None
    finally:
        handle.seek(at)


def _of_wav(handle: IO[bytes]) -> str | None:
    if wav.hides_data(handle):
        return "a data chunk without a size"
    content = wav.first_data(handle, CODED_SEARCH_BYTES)
    return "a coded bitstream in place of samples" if any(content.count(word) > 1 for word in CODED_WORDS) else None


def _of_mpeg(handle: IO[bytes]) -> str | None:
    tag, frame = mpeg.stated(handle), mpeg.frame_at(handle)
    if frame is None:
        return None
    if tag is None or tag.num_samples is None:
        return UNTOLD_LENGTH
    stated_s = tag.num_samples / frame.sample_rate
    there_s = mpeg.estimated_s(handle, tag.end)
    if there_s is not None and there_s > max(stated_s + MIN_BEHIND_S, MIN_LONGER * stated_s):
        return f"a tag that states {stated_s:.1f} s of about {there_s:.1f}"
    return None


def _of_flac(handle: IO[bytes]) -> str | None:
    """Compares the header with the number in the last frame."""
    handle.seek(8)
    info = handle.read(34)
    stated = int.from_bytes(info[13:18], "big") & ((1 << 36) - 1)
    block = struct.unpack_from(">H", info)[0]
    size = handle.seek(0, io.SEEK_END)
    handle.seek(max(42, size - TAIL_BYTES))
    last = max((end for end in _frame_ends(handle.read(), block)), default=0)
    if not 0 < stated < last or next_link(handle, b"fLaC", 1) is not None:
        return None
    return f"a header that states {stated} samples of {last}"


def _frame_ends(content: bytes, block: int) -> Iterator[int]:
    """The sample behind each frame whose header has the right checksum. Source: RFC 9639, 9.1."""
    at = content.find(b"\xff")
    while 0 <= at < len(content) - 16:
        if content[at + 1] & 0xFE == 0xF8:
            end = _frame_end(content[at : at + 16], block)
            if end is not None:
                yield end
        at = content.find(b"\xff", at + 1)


def _frame_end(header: bytes, block: int) -> int | None:
    code, rate = header[2] >> 4, header[2] & 15
    number, behind = _coded_number(header, 4)
    if number is None or code == 0 or rate == 15:
        return None
    samples = FLAC_BLOCKS.get(code, 0)
    if code in (6, 7):
        width = code - 5
        samples, behind = int.from_bytes(header[behind : behind + width], "big") + 1, behind + width
    behind += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if behind >= len(header) or _crc_8(header[:behind]) != header[behind]:
        return None
    return number + samples if header[1] & 1 else number * block + samples


def _coded_number(header: bytes, at: int) -> tuple[int | None, int]:
    """A number of up to 36 bits, coded as UTF-8 codes characters; and where it ends."""
    first = header[at]
    ones = next((n for n in range(8) if not first << n & 0x80), 8)
    if ones in (1, 8):
        return None, at
    number = first & (0x7F >> ones)
    for each in header[at + 1 : at + ones]:
        if each & 0xC0 != 0x80:
            return None, at
        number = number << 6 | each & 0x3F
    return number, at + max(1, ones)


def _crc_8(content: bytes) -> int:
    """Polynomial 0x07."""
    result = 0
    for byte in content:
        result ^= byte
        for _ in range(8):
            result = (result << 1 ^ 0x07 if result & 0x80 else result << 1) & 0xFF
    return result


def bytes_behind(handle: IO[bytes]) -> int:
    """Bytes of a WAV behind its data that belong to no chunk. The position is kept."""
    at = handle.tell()
    try:
        return wav.wav_bytes_behind(handle)
    finally:
        handle.seek(at)


def second_mp4(handle: IO[bytes]) -> int | None:
    """Byte at which another MP4 begins behind the first one's boxes. The position is kept. Source: ISO/IEC 14496-12, 4.2."""
    position = handle.tell()
    try:
        end, at, has_moov = handle.seek(0, io.SEEK_END), 0, False
        while at + 8 <= end:
            handle.seek(at)
            size, kind = struct.unpack(">I4s", handle.read(8))
            if size == 1:
                size = int.from_bytes(handle.read(8), "big")
            if kind == b"ftyp" and has_moov and at:
                return at
            has_moov = has_moov or kind == b"moov"
            if size < 8:
                return None
            at += size
        return None
    finally:
        handle.seek(position)
