"""Encoded bytes -> float32 blocks, with libsndfile first and FFmpeg (PyAV) for what it does not know.

Content decides, not the file's name. Blocks keep memory bounded whatever the length of the recording.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from audiomill.errors import Rejected

BLOCK_FRAMES = 1 << 16
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE, MAX_CHANNELS = 1_000, 768_000, 256
UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""Data sizes that streaming writers leave in a WAV header."""
FIXED_SIZE_WAV_TAGS = (1, 3, 6, 7, 0xFFFE)
"""PCM, float, A-law, mu-law, extensible: the same number of bytes a frame."""
SEEK_MARGIN_S = 1.0
LOSSY_FORMATS = ("MP3", "MPEG", "OGG")
INDEXED_FORMATS = ("mov", "matroska", "asf", "avi", "caf", "wav")
"""FFmpeg containers that state their duration; for raw streams (aac, amr) FFmpeg guesses it from the bit rate."""
FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,amrnb,amrwb,ogg,mp3,flac,wav,w64,aiff,au,caf,avi,asf,flv,mpegts,mpeg,"
    "ac3,eac3,ape,wv,tta,voc,nistsphere,gsm,dts,truehd,rm,swf,mpc,mpc8,ircam,sox,pvf"
)
"""Demuxers that read one stream of bytes. Playlists (hls, concat, dash) are left out: they open other files."""


@dataclass
class Audio:
    """An open recording. `num_announced`: samples per channel by header, None if it says nothing."""

    sample_rate: int
    num_channels: int
    num_announced: int | None
    blocks_TK: Iterator[NDArray[np.float32]]
    is_exact: bool
    """Whether the announced length is exact to the sample; lossy codecs pad and trim by some frames."""
    problems: list[str] = field(default_factory=list)
    """What went wrong while decoding, filled as blocks are read."""


@contextmanager
def open_audio(handle: IO[bytes], start_s: float = 0.0) -> Iterator[Audio]:
    """Opens encoded audio.

    Args:
        handle: seekable binary file at its start.
        start_s: seconds to leave out at the beginning.

    Yields:
        Audio with float32 (samples, channels) blocks in [-1, 1] from `start_s` on.

    Raises:
        Rejected: empty, not audio, without audio stream, or with an absurd header.
    """
    head = handle.read(64)
    handle.seek(0)
    if not head:
        raise Rejected("read", "empty", "expected encoded audio, got 0 bytes")
    try:
        file = soundfile.SoundFile(handle)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        if _is_wav(head):
            handle.seek(0)
            check_header(*_wav_format(handle))
        handle.seek(0)
        with _open_with_ffmpeg(handle, start_s, str(error).split(">: ")[-1].rstrip(".")) as audio:
            yield audio
        return
    with file:
        announced = _announced_frames(handle, head, file)
        check_header(file.samplerate, file.channels)
        first = int(start_s * file.samplerate + 0.5)
        if first:
            if first >= file.frames:
                raise Rejected(
                    "decode",
                    "span_outside",
                    f"expected a span inside {file.frames / file.samplerate:.3f} s, got start {start_s} s",
                )
            _skip_frames(file, first)
        rest = None if announced is None else max(0, announced - first)
        is_exact = file.format not in LOSSY_FORMATS
        audio = Audio(file.samplerate, file.channels, rest, iter(()), is_exact)
        audio.blocks_TK = _soundfile_blocks(file, audio, first)
        if head.startswith(b"OggS") and not _ogg_is_complete(handle):
            audio.problems.append("the Ogg stream ends without its last page")
        yield audio


def check_header(sample_rate: int, num_channels: int) -> None:
    """Raises Rejected when a header is outside what audio can be."""
    if not (MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE and 1 <= num_channels <= MAX_CHANNELS):
        raise Rejected(
            "decode",
            "absurd_header",
            f"expected {MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE} Hz and 1..{MAX_CHANNELS} channels, got {sample_rate} Hz and {num_channels}",
        )


def header_duration_s(handle: IO[bytes]) -> float | None:
    """Duration by header, for formats whose header says it; None otherwise. Never raises for bad audio."""
    head = handle.read(12)
    handle.seek(0)
    if head[:4] not in (b"RIFF", b"fLaC", b"FORM", b"RF64", b".snd"):
        return None
    try:
        with soundfile.SoundFile(handle) as file:
            return float(file.frames / file.samplerate) if file.samplerate and 0 < file.frames < 1 << 40 else None
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        return None


def _skip_frames(file: Any, count: int) -> None:
    """Seeks where the format can, else reads on."""
    if file.seekable():
        file.seek(count)
        return
    while count > 0 and (num_read := len(file.read(min(count, BLOCK_FRAMES), dtype="float32"))):
        count -= num_read


def _soundfile_blocks(file: Any, audio: Audio, num_read: int) -> Iterator[NDArray[np.float32]]:
    while True:
        block = np.full((BLOCK_FRAMES, file.channels), np.nan, np.float32)
        try:
            block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True, out=block)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            audio.problems.append(str(error).rstrip("."))
            good = _frames_before_error(file, block, num_read)
            if good:
                yield block[:good]
            return
        if not len(block):
            return
        num_read += len(block)
        yield block


def _frames_before_error(file: Any, block_TC: NDArray[np.float32], num_read: int) -> int:
    """Frames that libsndfile had delivered into a block when it failed: it raises, but leaves them there."""
    untouched = np.flatnonzero(np.isnan(block_TC[:, 0]))
    filled = int(untouched[0]) if len(untouched) else len(block_TC)
    try:
        told = int(file.tell()) - num_read
        return max(0, min(filled, told))
    except (soundfile.LibsndfileError, RuntimeError):
        return filled


def _announced_frames(handle: IO[bytes], head: bytes, file: Any) -> int | None:
    """Frames that the header promises: libsndfile hides it when a WAV's data is cut short."""
    if _is_wav(head):
        at = handle.tell()
        try:
            return _wav_frames(handle)
        finally:
            handle.seek(at)
    return int(file.frames) if 0 < file.frames < 1 << 48 else None


def _is_wav(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WAVE"


def _wav_chunks(handle: IO[bytes]) -> Iterator[tuple[bytes, int, bytes]]:
    """Name, stated size and first bytes of each chunk of a RIFF file."""
    handle.seek(12)
    while len(chunk := handle.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        start = handle.tell()
        yield name, size, handle.read(min(size, 64))
        handle.seek(start + size + size % 2)


def _wav_format(handle: IO[bytes]) -> tuple[int, int]:
    """Sample rate and channels as the header states them; (0, 0) without a format chunk."""
    for name, _, content in _wav_chunks(handle):
        if name == b"fmt " and len(content) >= 8:
            return struct.unpack_from("<I", content, 4)[0], struct.unpack_from("<H", content, 2)[0]
    return 0, 0


def _wav_frames(handle: IO[bytes]) -> int | None:
    """Frames in the data chunk, where a frame has a fixed number of bytes and the size is no placeholder."""
    block_align = 0
    for name, size, content in _wav_chunks(handle):
        if name == b"fmt " and len(content) >= 14:
            tag = struct.unpack_from("<H", content)[0]
            block_align = struct.unpack_from("<H", content, 12)[0] if tag in FIXED_SIZE_WAV_TAGS else 0
        elif name == b"data":
            return size // block_align if block_align and size not in UNKNOWN_SIZES else None
    return None


def _ogg_is_complete(handle: IO[bytes]) -> bool:
    at = handle.tell()
    end = handle.seek(0, io.SEEK_END)
    handle.seek(max(0, end - (1 << 16)))
    tail = handle.read()
    handle.seek(at)
    page = tail.rfind(b"OggS")
    return page < 0 or page + 5 >= len(tail) or bool(tail[page + 5] & 4)


class _Nameless(io.RawIOBase):
    """Hides the file's name from FFmpeg, which would guess the format by it."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._handle.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()


@contextmanager
def _open_with_ffmpeg(handle: IO[bytes], start_s: float, why_not_sndfile: str) -> Iterator[Audio]:
    try:
        container = av.open(
            _Nameless(handle), mode="r", metadata_errors="ignore", options={"format_whitelist": FFMPEG_FORMATS}
        )
    except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
        raise Rejected(
            "decode", "not_audio", f"libsndfile: {why_not_sndfile}; FFmpeg: {getattr(error, 'strerror', None) or error}"
        ) from error
    with container:
        if not container.streams.audio:
            raise Rejected(
                "decode",
                "no_audio_stream",
                f"expected an audio stream, got a {container.format.long_name} file without one",
            )
        stream = container.streams.audio[0]
        problems: list[str] = []
        if start_s > SEEK_MARGIN_S:
            container.seek(int((start_s - SEEK_MARGIN_S) / stream.time_base), stream=stream)
        frames = _ffmpeg_frames(container, stream, problems)
        first = next(frames, None)
        if first is None:
            raise Rejected(
                "decode",
                "decode_failed",
                f"expected {stream.codec.name if stream.codec_context else 'known'} audio, got: {'; '.join(problems) or 'no frames'}",
            )
        check_header(first.sample_rate, first.layout.nb_channels)
        announced = _ffmpeg_duration_s(container, stream)
        num_announced = None if announced is None else max(0, int((announced - start_s) * first.sample_rate))
        audio = Audio(first.sample_rate, first.layout.nb_channels, num_announced, iter(()), False, problems)
        audio.blocks_TK = _ffmpeg_blocks(first, frames, start_s)
        yield audio


def _ffmpeg_duration_s(container: Any, stream: Any) -> float | None:
    if not any(name in container.format.name for name in INDEXED_FORMATS):
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration is not None else None


def _ffmpeg_frames(container: Any, stream: Any, problems: list[str]) -> Iterator[Any]:
    """Frames in order; a packet that cannot be decoded is noted and left out."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError) as error:
            problems.append(str(error))
            return
        try:
            yield from packet.decode()
        except (av.FFmpegError, ValueError) as error:
            if len(problems) < 3:
                problems.append(f"packet at {float((packet.pts or 0) * stream.time_base):.3f} s: {error}")


def _ffmpeg_blocks(first: Any, frames: Iterator[Any], start_s: float) -> Iterator[NDArray[np.float32]]:
    """Planar float blocks of about `BLOCK_FRAMES`, all at the first frame's rate and layout."""
    convert = av.AudioResampler(format="fltp", layout=first.layout, rate=first.sample_rate)
    skip = _samples_to_skip(first, start_s)
    waiting: list[NDArray[np.float32]] = []
    for frame in _chain(first, frames):
        for converted in convert.resample(frame):
            block = converted.to_ndarray().T
            waiting.append(block[skip:])
            skip = max(0, skip - len(block))
        if sum(map(len, waiting)) >= BLOCK_FRAMES:
            yield np.concatenate(waiting)
            waiting = []
    waiting += [converted.to_ndarray().T[skip:] for converted in convert.resample(None)]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


def _samples_to_skip(first: Any, start_s: float) -> int:
    """The first frame after a seek lies before the wanted start; its time stamp says by how much."""
    at = float(first.pts * first.time_base) if first.pts is not None and start_s > SEEK_MARGIN_S else 0.0
    return max(0, int((start_s - at) * first.sample_rate + 0.5))


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
