"""Containers and codecs that libsndfile does not know, by FFmpeg (PyAV): one audio track, on its time line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, Any

import av
import av.logging
import av.stream

from audiomill.audio.opened import Audio, check_header
from audiomill.audio.timeline import MAX_GAP_S, Clock, Lost, TimeLine
from audiomill.errors import RecordingRejected

SEEK_MARGIN_S = 1.0
MAX_PROBLEMS = 3
"""Packets that are named; a damaged file may have thousands."""
MAX_CLUSTER_HEADER_BYTES = 512
"""Of Matroska, between two packets of a file with one track."""
LEAST_BYTES_PER_SECOND = 50.0
"""Of a container; fewer mean that its time stamps jump."""
NUM_ESTIMATED_FROM = 500
"""Packets: ten seconds and more."""
INDEXED_FORMATS = ("mov", "matroska", "asf", "avi", "caf", "wav")
"""FFmpeg containers that state their duration; for raw streams (aac, amr) FFmpeg guesses it from the bit rate."""
FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,amrnb,amrwb,ogg,mp3,flac,wav,w64,aiff,au,caf,avi,asf,flv,mpegts,mpeg,"
    "mxf,loas,nut,oma,dsf,iff,xwma,shn,wtv,ac3,eac3,ape,wv,tta,voc,nistsphere,gsm,dts,truehd,rm,swf,mpc,mpc8,ircam,sox,pvf"
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
    container = _container(handle, why_not_sndfile)
    av.logging.set_level(av.logging.ERROR)
    with container, av.logging.Capture() as complaints:
        if not container.streams.audio:
            raise RecordingRejected(
                "decode",
                "no_audio_stream",
                f"expected an audio stream, got a {container.format.long_name} file without one",
            )
        stream = _chosen(container, track)
        if stream.codec_context is None:
            raise RecordingRejected(
                "decode", "decode_failed", f"expected a known codec in {container.format.long_name}, got another"
            )
        number, left_out = _track_choice(container, stream)
        problems: list[str] = []
        clock = Clock(container, stream)
        is_sought = start_s > SEEK_MARGIN_S and _seek(container, stream, start_s - SEEK_MARGIN_S + clock.zero_s)
        frames = _ffmpeg_frames(container, stream, problems, complaints)
        if is_sought:  # a seek may land in the middle of a packet
            frames = _from_first_good(frames, problems)
        if not fills:
            frames = (frame for frame in frames if not isinstance(frame, Lost))
        lost_s, first = 0.0, next(frames, None)
        while isinstance(first, Lost):
            lost_s, first = lost_s + first.seconds, next(frames, None)
        if first is None:
            raise RecordingRejected(
                "decode",
                "decode_failed",
                f"expected {stream.codec.name} audio, got: {'; '.join(problems) or 'no frames'}",
            )
        check_header(first.sample_rate, first.layout.nb_channels)
        announced = _ffmpeg_duration_s(container, stream, clock)
        num_announced = None if announced is None else max(0, int((announced - start_s) * first.sample_rate))
        audio = Audio(
            first.sample_rate, first.layout.nb_channels, num_announced, iter(()), False, problems, number, left_out
        )
        line = TimeLine(first, start_s, is_sought, clock, audio, lost_s)
        audio.blocks_TK = line.blocks(chain([first], frames))
        yield audio


def _container(handle: IO[bytes], why_not_sndfile: str) -> Any:
    try:
        return av.open(
            _Nameless(handle), mode="r", metadata_errors="ignore", options={"format_whitelist": FFMPEG_FORMATS}
        )
    except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
        raise RecordingRejected(
            "decode", "not_audio", f"libsndfile: {why_not_sndfile}; FFmpeg: {getattr(error, 'strerror', None) or error}"
        ) from error


def _seek(container: Any, stream: Any, seconds: float) -> bool:
    """Whether the place was found; a file that is cut short has none so late."""
    try:
        container.seek(int(seconds / stream.time_base), stream=stream)
    except av.FFmpegError:
        return False
    return True


def tracks_of(handle: IO[bytes]) -> tuple[int, int]:
    """Number of audio tracks, and which one is the default, from 1; (0, 0) for what is no container."""
    try:
        with av.open(
            _Nameless(handle), metadata_errors="ignore", options={"format_whitelist": FFMPEG_FORMATS}
        ) as result:
            tracks = list(result.streams.audio)
            return (len(tracks), tracks.index(_chosen(result, "default")) + 1) if tracks else (0, 0)
    except (av.FFmpegError, ValueError, UnicodeDecodeError):
        return 0, 0


def container_duration_s(handle: IO[bytes]) -> float | None:
    """Duration of a container by its index or its time stamps; None for other files and where FFmpeg would guess it by the
    bit rate."""
    try:
        with av.open(
            _Nameless(handle), metadata_errors="ignore", options={"format_whitelist": FFMPEG_FORMATS}
        ) as result:
            is_known = any(
                name in result.format.name for name in (*INDEXED_FORMATS, "ogg", "mpeg", "flv", "nistsphere")
            )
            if not is_known or not result.streams.audio or result.duration is None:
                return None
            stream = _chosen(result, "default")
            known = result.duration / av.time_base
            if stream.duration is not None and stream.time_base is not None:
                known = float(stream.duration * stream.time_base)
            num_bytes = handle.seek(0, io.SEEK_END)
            return known if 0 < known < num_bytes / LEAST_BYTES_PER_SECOND else None
    except (av.FFmpegError, ValueError, UnicodeDecodeError, RecordingRejected):
        return None


def estimated_duration_s(handle: IO[bytes]) -> float | None:
    """Duration of a file that states none, by the time that the first packets of its audio track take and the bytes of the file
    that they take, pictures between them among these; None for what is no audio."""
    num_bytes = handle.seek(0, io.SEEK_END)
    handle.seek(0)
    try:
        with av.open(
            _Nameless(handle), metadata_errors="ignore", options={"format_whitelist": FFMPEG_FORMATS}
        ) as container:
            if not container.streams.audio:
                return None
            stream = _chosen(container, "default")
            first: tuple[int, float] | None = None
            seconds, size = 0.0, 0
            for packet in islice(container.demux(stream), NUM_ESTIMATED_FROM):
                if packet.pts is None or packet.pos is None or packet.time_base is None:
                    continue
                at = float(packet.pts * packet.time_base)
                first = first or (packet.pos, at)
                size, seconds = packet.pos - first[0], at - first[1]
            result = seconds * num_bytes / size if size > 0 and seconds > 0 else None
            return None if result is None or result > num_bytes / LEAST_BYTES_PER_SECOND else result
    except (av.FFmpegError, ValueError, UnicodeDecodeError, RecordingRejected):
        return None


def _track_choice(container: Any, stream: Any) -> tuple[int | None, str | None]:
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
        RecordingRejected: there is none of that number or language.
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
        raise RecordingRejected("decode", "no_audio_stream", f"expected audio track {track}, got {names}")
    return chosen


def _ffmpeg_duration_s(container: Any, stream: Any, clock: Clock) -> float | None:
    if not any(name in container.format.name for name in INDEXED_FORMATS) or clock.zero_s > MAX_GAP_S:
        return None  # by the bit rate, or of a clock that begins anywhere
    if stream.duration is not None and stream.time_base is not None:
        return clock.start_s + float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration is not None else None


def _from_first_good(frames: Iterator[Any], problems: list[str]) -> Iterator[Any]:
    """Without what could not be decoded before the first frame."""
    first = next((frame for frame in frames if not isinstance(frame, Lost)), None)
    problems.clear()
    if first is not None:
        yield first
        yield from frames


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
        yield from [Lost(0.0, message.strip()) for _, name, message in complaints if name == container.format.name]
        complaints.clear()
        if is_dense and packet.pos is not None:
            if end is not None and packet.pos - end > MAX_CLUSTER_HEADER_BYTES:
                yield Lost(0.0, f"{packet.pos - end} bytes that are no audio")
            end = packet.pos + packet.size
        try:
            yield from packet.decode()
        except (av.FFmpegError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            problem = f"packet at {float((packet.pts or 0) * stream.time_base):.3f} s: {why}"
            if len(problems) < MAX_PROBLEMS:
                problems.append(problem)
            yield Lost(float((packet.duration or 0) * stream.time_base) or usual_s, problem)
