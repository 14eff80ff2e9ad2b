"""Containers and codecs that libsndfile does not know, by FFmpeg (PyAV): one audio track, on its time line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

import av
import av.stream
import numpy as np
from numpy.typing import NDArray

from audiomill.audio.opened import BLOCK_FRAMES, Audio, check_header
from audiomill.errors import Rejected

SEEK_MARGIN_S = 1.0
MIN_GAP_S, MAX_GAP_S = 0.1, 6 * 3600.0
"""Gaps between packets that are silence: shorter ones are rounding, longer ones a clock that was set anew."""
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
def open_with_ffmpeg(handle: IO[bytes], start_s: float, track: str, why_not_sndfile: str) -> Iterator[Audio]:
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
        stream = _chosen(container, track)
        number, left_out = _told(container, stream)
        problems: list[str] = []
        clock = _Clock(container, stream)
        if start_s > SEEK_MARGIN_S:
            container.seek(int((start_s - SEEK_MARGIN_S + clock.zero_s) / stream.time_base), stream=stream)
        frames = _ffmpeg_frames(container, stream, problems)
        first = next(frames, None)
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
        audio.blocks_TK = _ffmpeg_blocks(first, frames, start_s, clock)
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


def _ffmpeg_blocks(first: Any, frames: Iterator[Any], start_s: float, clock: _Clock) -> Iterator[NDArray[np.float32]]:
    """Planar float blocks of about `BLOCK_FRAMES`, all at the first frame's rate and layout, each frame at its time: what
    lies before the start is left out, and where there are no packets there is silence."""
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

    yield from silence(reached - position, layout.nb_channels)
    position = max(position, reached)
    for frame in chain([first], frames):
        told = clock.sample_of(frame) if clock.is_told and frame.sample_rate == rate else None
        gap = 0 if told is None else told - reached
        is_gap = MIN_GAP_S * rate < gap < MAX_GAP_S * rate
        if is_gap or _kind(frame) != kind:  # a station changes its rate or layout between two programmes
            waiting += [placed(each.to_ndarray().T) for each in convert.resample(None)]
            convert, kind = av.AudioResampler(format="fltp", layout=layout, rate=rate), _kind(frame)
        if is_gap:
            waiting += [placed(each) for each in silence(gap, layout.nb_channels)]
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
