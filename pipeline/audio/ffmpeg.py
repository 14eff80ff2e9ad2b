"""Containers and codecs that libsndfile does not know, by FFmpeg (PyAV): one audio track, on its time line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any, NamedTuple

import av
import av.logging
import av.stream
import numpy as np
from numpy.typing import NDArray

from audiomill.audio.opened import BLOCK_FRAMES, Audio, check_header
from audiomill.errors import Rejected

SEEK_MARGIN_S = 1.0
MIN_GAP_S, MAX_GAP_S = 0.1, 6 * 3600.0
"""Gaps between packets that are silence: shorter ones are rounding, longer ones a clock that was set anew."""
MAX_PROBLEMS = 3
"""Packets that are named; a damaged file may have thousands."""
MAX_CLUSTER_HEADER_BYTES = 512
"""Of Matroska, between two packets of a file with one track."""
TIMED_FORMATS = ("mov", "matroska", "asf", "avi", "mpegts", "mpeg", "flv")
"""Containers whose packets carry the time at which they are to be heard."""
ARBITRARY_START = ("mpegts", "mpeg", "asf", "flv")
"""Those whose clock does not begin with the recording."""
INDEXED_FORMATS = ("mov", "matroska", "asf", "avi", "caf", "wav")
"""FFmpeg containers that state their duration; for raw streams (aac, amr) FFmpeg guesses it from the bit rate."""
FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,amrnb,amrwb,ogg,mp3,flac,wav,w64,aiff,au,caf,avi,asf,flv,mpegts,mpeg,"
    "ac3,eac3,ape,wv,tta,voc,nistsphere,gsm,dts,truehd,rm,swf,mpc,mpc8,ircam,sox,pvf"
)
"""Demuxers that read one stream of bytes. Playlists (hls, concat, dash) are left out: they open other files."""


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
def open_with_ffmpeg(
    handle: IO[bytes], start_s: float, track: str, why_not_sndfile: str, *, fills: bool = True
) -> Iterator[Audio]:
    """Opens a container. `fills`: packets that cannot be decoded are silence as long as they say that they are."""
    try:
        container = av.open(
            _Nameless(handle), mode="r", metadata_errors="ignore", options={"format_whitelist": FFMPEG_FORMATS}
        )
    except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
        raise Rejected(
            "decode", "not_audio", f"libsndfile: {why_not_sndfile}; FFmpeg: {getattr(error, 'strerror', None) or error}"
        ) from error
    av.logging.set_level(av.logging.ERROR)
    with container, av.logging.Capture() as complaints:
        if not container.streams.audio:
            raise Rejected(
                "decode",
                "no_audio_stream",
                f"expected an audio stream, got a {container.format.long_name} file without one",
            )
        stream = _chosen(container, track)
        number, left_out = _told(container, stream)
        problems: list[str] = []
        clock = _Clock(container, stream)
        if start_s > SEEK_MARGIN_S:
            container.seek(int((start_s - SEEK_MARGIN_S + clock.zero_s) / stream.time_base), stream=stream)
        frames = _ffmpeg_frames(container, stream, problems, complaints)
        if not fills:
            frames = (frame for frame in frames if not isinstance(frame, _Lost))
        lost_s, first = 0.0, next(frames, None)
        while isinstance(first, _Lost):
            lost_s, first = lost_s + first.seconds, next(frames, None)
        if first is None:
            raise Rejected(
                "decode",
                "decode_failed",
                f"expected {stream.codec.name if stream.codec_context else 'known'} audio, got: {'; '.join(problems) or 'no frames'}",
            )
        check_header(first.sample_rate, first.layout.nb_channels)
        announced = _ffmpeg_duration_s(container, stream, clock)
        num_announced = None if announced is None else max(0, int((announced - start_s) * first.sample_rate))
        audio = Audio(
            first.sample_rate, first.layout.nb_channels, num_announced, iter(()), False, problems, number, left_out
        )
        audio.blocks_TK = _ffmpeg_blocks(first, frames, start_s, clock, audio, lost_s)
        yield audio


def tracks_of(handle: IO[bytes]) -> tuple[int, int]:
    """Number of audio tracks, and which one is the default, from 1; (0, 0) for what is no container."""
    try:
        with av.open(
            _Nameless(handle), metadata_errors="ignore", options={"format_whitelist": FFMPEG_FORMATS}
        ) as found:
            tracks = list(found.streams.audio)
            return (len(tracks), tracks.index(_chosen(found, "default")) + 1) if tracks else (0, 0)
    except (av.FFmpegError, ValueError, UnicodeDecodeError):
        return 0, 0


def _told(container: Any, stream: Any) -> tuple[int | None, str | None]:
    """Number of a track where there are several, and what is said of the others."""
    tracks = list(container.streams.audio)
    if len(tracks) == 1:
        return None, None
    number = tracks.index(stream) + 1
    return number, f"of {len(tracks)} audio tracks only {_name(number, stream)} was read; --track names another, or all"


def _name(number: int, stream: Any) -> str:
    return f"{number} ({stream.language or 'no language'})"


def _chosen(container: Any, track: str) -> Any:
    """The audio track that is asked for.

    Raises:
        Rejected: there is none of that number or language.
    """
    tracks = list(container.streams.audio)
    if track == "default":
        marked = [each for each in tracks if each.disposition & av.stream.Disposition.default]
        chosen = (marked or tracks)[0]
    elif track == "first":
        chosen = tracks[0]
    elif track.isdigit():
        chosen = tracks[int(track) - 1] if 0 < int(track) <= len(tracks) else None
    else:
        chosen = next((each for each in tracks if (each.language or "").lower() == track.lower()), None)
    if chosen is None:
        names = ", ".join(_name(number, each) for number, each in enumerate(tracks, 1))
        raise Rejected("decode", "no_audio_stream", f"expected audio track {track}, got {names}")
    return chosen


class _Clock:
    """Where frames lie on the recording's time line. `zero_s`: the time stamp at which it begins; `is_told`: whether time
    stamps can be believed in this container."""

    def __init__(self, container: Any, stream: Any) -> None:
        name = container.format.name
        self.is_told = any(each in name for each in TIMED_FORMATS)
        counts_from_start = any(each in name for each in ARBITRARY_START)
        begin = container.start_time
        self.zero_s = begin / av.time_base if counts_from_start and begin is not None else 0.0
        self.start_s = 0.0
        if self.is_told and stream.start_time is not None:
            self.start_s = max(0.0, float(stream.start_time * stream.time_base) - self.zero_s)

    def sample_of(self, frame: Any) -> int | None:
        """Position of a frame; None where it does not tell."""
        if frame.pts is None:
            return None
        seconds: float = float(frame.pts * frame.time_base) - self.zero_s
        return round(seconds * int(frame.sample_rate))


def _ffmpeg_duration_s(container: Any, stream: Any, clock: _Clock) -> float | None:
    if not any(name in container.format.name for name in INDEXED_FORMATS):
        return None
    if stream.duration is not None and stream.time_base is not None:
        return clock.start_s + float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration is not None else None


class _Lost(NamedTuple):
    """A packet that could not be decoded, with the seconds that it should have given; or, with 0 s, a place at which the
    container itself is damaged."""

    seconds: float
    problem: str


def _ffmpeg_frames(container: Any, stream: Any, problems: list[str], complaints: list[Any]) -> Iterator[Any]:
    """Frames in order, and what is lost between them.

    Args:
        container: an open one.
        stream: of it.
        problems: here packets that could not be decoded are noted.
        complaints: what FFmpeg has logged: name of who speaks and its message behind its level. A container says only there
            that it skips what it cannot read.
    """
    codec, packets = stream.codec_context, container.demux(stream)
    usual_s = codec.frame_size / (codec.sample_rate or 1)
    is_dense = "matroska" in container.format.name and len(container.streams) == 1
    end: int | None = None  # of the packet before
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError) as error:
            problems.append(str(error))
            return
        yield from [_Lost(0.0, message.strip()) for _, name, message in complaints if name == container.format.name]
        complaints.clear()
        if is_dense and packet.pos is not None:
            if end is not None and packet.pos - end > MAX_CLUSTER_HEADER_BYTES:
                yield _Lost(0.0, f"{packet.pos - end} bytes that are no audio")
            end = packet.pos + packet.size
        try:
            yield from packet.decode()
        except (av.FFmpegError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            problem = f"packet at {float((packet.pts or 0) * stream.time_base):.3f} s: {why}"
            if len(problems) < MAX_PROBLEMS:
                problems.append(problem)
            yield _Lost(float((packet.duration or 0) * stream.time_base) or usual_s, problem)


def _ffmpeg_blocks(
    first: Any, frames: Iterator[Any], start_s: float, clock: _Clock, audio: Audio, lost_s: float
) -> Iterator[NDArray[np.float32]]:
    """Planar float blocks of about `BLOCK_FRAMES`, all at the first frame's rate and layout, each frame at its time: what
    lies before the start is left out, and where there are no packets, or none that can be decoded, there is silence.

    Args:
        lost_s: seconds of packets before the first frame that could not be decoded.
    """
    rate, layout = first.sample_rate, first.layout
    convert, kind = av.AudioResampler(format="fltp", layout=layout, rate=rate), _kind(first)
    has_sought = start_s > SEEK_MARGIN_S
    at = clock.sample_of(first) if has_sought or clock.is_told else None
    position = int(start_s * rate + 0.5)  # of the next sample that is given
    reached = max(0, at or 0)  # of the next sample that is decoded
    waiting: list[NDArray[np.float32]] = []

    def placed(block: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal position, reached
        kept = block[max(0, min(len(block), position - reached)) :]
        reached += len(block)
        position = max(position, reached)
        return kept

    if not has_sought:
        lost = round(lost_s * rate)
        reached = max(reached, lost)
        audio.num_lost += max(0, lost - position)
    yield from silence(reached - position, layout.nb_channels)
    position, damage = max(position, reached), None
    for frame in chain([first], frames):
        if isinstance(frame, _Lost):
            damage = frame.problem
            if not frame.seconds:
                continue
            waiting += [placed(each.to_ndarray().T) for each in convert.resample(None)]
            convert = av.AudioResampler(format="fltp", layout=layout, rate=rate)
            lost = [placed(each) for each in silence(round(frame.seconds * rate), layout.nb_channels)]
            audio.num_lost += sum(map(len, lost))
            waiting += lost
            continue
        told = clock.sample_of(frame) if clock.is_told and frame.sample_rate == rate else None
        gap = 0 if told is None else told - reached
        is_gap = MIN_GAP_S * rate < gap < MAX_GAP_S * rate
        if is_gap or _kind(frame) != kind:  # a station changes its rate or layout between two programmes
            waiting += [placed(each.to_ndarray().T) for each in convert.resample(None)]
            convert, kind = av.AudioResampler(format="fltp", layout=layout, rate=rate), _kind(frame)
        if is_gap:
            skipped = [placed(each) for each in silence(gap, layout.nb_channels)]
            waiting += skipped
            if damage is not None:  # the container lost its thread there; else the recording has a pause
                audio.num_lost += sum(map(len, skipped))
                told_s = (told or 0) / rate
                audio.problems.append(f"nothing between {told_s - gap / rate:.3f} and {told_s:.3f} s ({damage})")
        damage = None
        waiting += [placed(converted.to_ndarray().T) for converted in convert.resample(frame)]
        if sum(map(len, waiting)) >= BLOCK_FRAMES:
            yield np.concatenate(waiting)
            waiting = []
    waiting += [placed(converted.to_ndarray().T) for converted in convert.resample(None)]
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


def _kind(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def silence(count: int, num_channels: int) -> Iterator[NDArray[np.float32]]:
    for done in range(0, max(0, count), BLOCK_FRAMES):
        yield np.zeros((min(BLOCK_FRAMES, count - done), num_channels), np.float32)
