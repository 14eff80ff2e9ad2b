"""Streams that follow each other in one file: chained Ogg (Icecast, `cat a.ogg b.ogg`), joined MP3, FLAC, WAV, AIFF, CAF
and AU files.

libsndfile reads the first one alone. Each one here starts with its own header, so it is decoded as a file of its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import soxr
from numpy.typing import NDArray

from audiomill.audio.headers import mpeg
from audiomill.audio.opened import Audio

_SCAN_BYTES = 1 << 20
MP3_HEADER_BYTES = 4_096
"""The first frame of an MP3, which holds its length, is in them, behind its tags."""
MP3_PADDING_BYTES = 512
"""May lie between them."""
BEGINS = b"[" + re.escape(bytes(flags for flags in range(256) if flags & 2)) + b"]"
"""Flags of an Ogg page that begins a stream."""
STARTS = {
    b"OggS": re.compile(rb"OggS\x00" + BEGINS, re.S),
    b"fLaC": re.compile(rb"fLaC\x00\x00\x00\x22"),
    b"RIFF": re.compile(rb"RIFF.{4}WAVEfmt ", re.S),
    b"RF64": re.compile(rb"RF64\xff{4}WAVEds64"),
    b"FORM": re.compile(rb"FORM.{4}AIF[FC](?:COMM|FVER)", re.S),
    b"caff": re.compile(rb"caff\x00\x01\x00\x00desc"),
    b".snd": re.compile(rb"\.snd\x00\x00\x00[\x18-\xff].{4}\x00\x00\x00[\x01-\x1b]", re.S),
}
"""How a stream of each kind begins, by the first bytes of the file."""
MP3_START = re.compile(rb"ID3[\x02-\x04]\x00|\xff[\xe0-\xff](?:.{34}|.{19}|.{11})(?:Xing|Info)\x00\x00\x00", re.S)
"""The tag before an MP3, or its first frame with the length that libsndfile believes: MPEG 1 stereo, MPEG 1 mono or MPEG 2
stereo, MPEG 2 mono."""


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


def next_link(handle: IO[bytes], head: bytes, start: int) -> int | None:
    """Byte at which another stream of the same kind begins, at or behind `start`; None: there is none.

    Args:
        handle: the file; its position is kept.
        head: its first bytes.
        start: more than 0.
    """
    is_mp3 = mpeg.is_stream(head)
    pattern = MP3_START if is_mp3 else STARTS.get(head[:4])
    if pattern is None:
        return None
    position = handle.tell()
    try:
        if is_mp3:
            tag = mpeg.stated(handle)
            if tag is not None and tag.end is not None and mpeg.begins_at(handle, tag.end):
                return tag.end
            start = max(start, _mp3_header_end(handle))
        handle.seek(start)
        at, carry = start, b""
        while block := handle.read(_SCAN_BYTES):
            content = carry + block
            match = pattern.search(content)
            if match is not None:
                return at - len(carry) + match.start()
            carry, at = content[-64:], at + len(block)
        return None
    finally:
        handle.seek(position)


def _mp3_header_end(handle: IO[bytes]) -> int:
    """Behind the first piece's own tags and its frame with the length."""
    at = mpeg.tags_end(handle)
    handle.seek(at)
    match = MP3_START.search(handle.read(MP3_HEADER_BYTES))
    return at + (match.end() if match is not None and match.start() < MP3_PADDING_BYTES else 1)


def as_the_first(audio: Audio, sample_rate: int, num_channels: int) -> Iterator[NDArray[np.float32]]:
    """Blocks of a stream at the rate and with the channels of the one before it."""
    stream = soxr.ResampleStream(audio.sample_rate, sample_rate, num_channels, dtype="float32")
    for block in audio.blocks_TK:
        fitted = with_channels(block, num_channels)
        yield fitted if audio.sample_rate == sample_rate else stream.resample_chunk(fitted)
    if audio.sample_rate != sample_rate:
        yield stream.resample_chunk(np.zeros((0, num_channels), np.float32), last=True)


def with_channels(block_TC: NDArray[np.float32], num_channels: int) -> NDArray[np.float32]:
    """As many channels: the same ones, the mean of all, or the first ones and silence."""
    have = block_TC.shape[1]
    if have == num_channels:
        return block_TC
    if num_channels == 1:
        mixed: NDArray[np.float32] = block_TC.mean(axis=1, keepdims=True, dtype=np.float32)
        return mixed
    if have == 1:
        return np.repeat(block_TC, num_channels, axis=1)
    fitted = np.zeros((len(block_TC), num_channels), np.float32)
    fitted[:, : min(have, num_channels)] = block_TC[:, :num_channels]
    return fitted
