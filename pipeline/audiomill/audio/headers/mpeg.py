"""MPEG audio without a container: frame headers of MP3, MP2, MP1 and ADTS, and the length of a stream of them.

Such a stream states its length only where an encoder wrote a Xing, Info or VBRI tag into its first frame. libsndfile and
FFmpeg otherwise take the bit rate of the first frame for that of all.
"""

from __future__ import annotations

import io
import struct
from typing import IO, NamedTuple

SEARCH_BYTES = 1 << 16
"""Where a frame is looked for behind the tags, and at each place that an estimate looks at."""
NUM_PLACES, FRAMES_A_PLACE = 32, 8
"""That an estimate looks at."""
BIT_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by whether it is MPEG 1, and layer; layer 3 of MPEG 2 has those of layer 2. Source: ISO/IEC 11172-3, 13818-3."""
SAMPLE_RATES = (44_100, 48_000, 32_000)
ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)


class Frame(NamedTuple):
    """One frame. `kind`: what all frames of a stream share."""

    num_bytes: int
    num_samples: int
    sample_rate: int
    kind: tuple[int, int, int]

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate


class Stated(NamedTuple):
    """The tag in the first frame. `num_samples`: as it states; `end`: byte behind the stream; None where it does not say."""

    num_samples: int | None
    end: int | None


def frame_of(header: bytes) -> Frame | None:
    """The MPEG or ADTS frame that begins with these bytes (4, for ADTS 6); None: they are none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    layer = 4 - (header[1] >> 1 & 3)
    return _adts(header) if layer == 4 else _mpeg(header, layer)


def _mpeg(header: bytes, layer: int) -> Frame | None:
    version = header[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    at, rate_at = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or rate_at == 3 or not 0 < at < 15:
        return None
    is_first = version == 3
    bit_rate = 1000 * BIT_RATES[is_first, layer if is_first or layer == 1 else 2][at - 1]
    sample_rate = SAMPLE_RATES[rate_at] >> (3 - version if version else 2)
    num_samples = 384 if layer == 1 else 576 if layer == 3 and not is_first else 1152
    unit, padding = (4 if layer == 1 else 1), header[2] >> 1 & 1
    return Frame(
        (num_samples // 8 // unit * bit_rate // sample_rate + padding) * unit,
        num_samples,
        sample_rate,
        (version, layer, sample_rate),
    )


def _adts(header: bytes) -> Frame | None:
    """Source: ISO/IEC 13818-7, adts_fixed_header."""
    rate_at = header[2] >> 2 & 15
    if len(header) < 6 or header[1] & 0xF6 != 0xF0 or rate_at >= len(ADTS_RATES):
        return None
    num_bytes = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return Frame(num_bytes, 1024, ADTS_RATES[rate_at], (4, 4, ADTS_RATES[rate_at])) if num_bytes > 7 else None


def first_frame(content: bytes) -> int | None:
    """Where the first two frames of one kind follow each other in some bytes."""
    at = content.find(b"\xff")
    while at >= 0:
        frame = frame_of(content[at : at + 8])
        if frame is not None:
            behind = at + frame.num_bytes
            following = frame_of(content[behind : behind + 8])
            if following is not None and following.kind == frame.kind:
                return at
        at = content.find(b"\xff", at + 1)
    return None


def tags_end(handle: IO[bytes]) -> int:
    """Byte behind the ID3v2 tags at a file's beginning. The size of such a tag has seven bits a byte."""
    at = 0
    while True:
        handle.seek(at)
        head = handle.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return at
        at += 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def stated(handle: IO[bytes]) -> Stated | None:
    """What the Xing, Info or VBRI tag of an MP3 says; None without one. The handle's position is kept.

    Source: gabriel-bouvigne.net "VBR header and LAME tag"; codeproject.com "MPEG Audio Frame Header", 2.3.
    """
    position = handle.tell()
    try:
        begin = tags_end(handle)
        handle.seek(begin)
        content = handle.read(SEARCH_BYTES)
        at = next((at for at in range(min(len(content), 4096)) if _holds_tag(content, at)), None)
        frame = None if at is None else frame_of(content[at : at + 8])
        if at is None or frame is None:
            return None
        return _tag(content[at:], frame, begin + at)
    finally:
        handle.seek(position)


def _side_bytes(header: bytes) -> int:
    """Of the side information between the header and a Xing tag."""
    is_mono, is_first = header[3] >> 6 == 3, header[1] >> 3 & 3 == 3
    return (17 if is_mono else 32) if is_first else (9 if is_mono else 17)


def _holds_tag(content: bytes, at: int) -> bool:
    if content[at] != 0xFF or frame_of(content[at : at + 8]) is None:
        return False
    xing = at + 4 + _side_bytes(content[at:])
    return content[xing : xing + 4] in (b"Xing", b"Info") or content[at + 36 : at + 40] == b"VBRI"


def _tag(content: bytes, frame: Frame, begin: int) -> Stated:
    xing = 4 + _side_bytes(content)
    if content[36:40] == b"VBRI":
        num_bytes, num_frames = struct.unpack_from(">II", content, 46)
    else:
        (flags,) = struct.unpack_from(">I", content, xing + 4)
        fields = iter(struct.unpack_from(">II", content, xing + 8))
        num_frames = next(fields) if flags & 1 else 0
        num_bytes = next(fields) if flags & 2 else 0
    return Stated(num_frames * frame.num_samples or None, begin + num_bytes if num_bytes else None)


def begins_at(handle: IO[bytes], at: int) -> bool:
    """Whether two frames of one kind lie at a byte: where a tag states the end, another stream without a tag."""
    handle.seek(at)
    return first_frame(handle.read(SEARCH_BYTES)) == 0


def estimated_s(handle: IO[bytes], stated_end: int | None = None) -> float | None:
    """Seconds of a stream of frames, by the seconds a byte at places all over it; None where there are no frames.

    Args:
        handle: the file.
        stated_end: byte behind the stream, where a tag says it.
    """
    begin, end = tags_end(handle), handle.seek(0, io.SEEK_END)
    end = end if stated_end is None or stated_end <= begin else min(end, stated_end)
    results = [each for at in _places(begin, end) if (each := _seconds_a_byte(handle, at)) is not None]
    return None if not results else (end - begin) * sum(results) / len(results)


def _places(begin: int, end: int) -> list[int]:
    step = max(1, (end - begin) // NUM_PLACES)
    return list(range(begin, max(begin + 1, end - step // 2), step))


def _seconds_a_byte(handle: IO[bytes], at: int) -> float | None:
    handle.seek(at)
    content = handle.read(SEARCH_BYTES // 4)
    first = first_frame(content)
    if first is None:
        return None
    seconds, num_bytes, place = 0.0, 0, first
    for _ in range(FRAMES_A_PLACE):
        frame = frame_of(content[place : place + 8])
        if frame is None:
            break
        seconds, num_bytes, place = seconds + frame.seconds, num_bytes + frame.num_bytes, place + frame.num_bytes
    return seconds / num_bytes


def is_stream(head: bytes) -> bool:
    """Whether a file's first bytes look like such a stream."""
    return head[:3] == b"ID3" or frame_of(head) is not None


def frame_at(handle: IO[bytes]) -> Frame | None:
    """The first frame of a file, behind its tags, unless that is a file of another kind; the handle's position is kept."""
    position = handle.tell()
    handle.seek(tags_end(handle))
    content = handle.read(SEARCH_BYTES)
    at = None if content[:4] in (b"RIFF", b"fLaC", b"OggS", b"FORM") else first_frame(content)
    handle.seek(position)
    return None if at is None else frame_of(content[at : at + 8])
