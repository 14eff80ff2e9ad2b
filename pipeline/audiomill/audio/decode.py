"""Encoded bytes -> float32 blocks, with libsndfile first and FFmpeg (PyAV) for what it does not know.

Content decides, not the file's name. Blocks keep memory bounded whatever the length of the recording.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiomill.audio.ffmpeg import container_duration_s, estimated_duration_s, open_with_ffmpeg
from audiomill.audio.headers import mpeg, wav
from audiomill.audio.headers.stated import STATES, stated_frames
from audiomill.audio.headers.underrated import UNTOLD_LENGTH, bytes_behind, second_mp4, why_not_believed
from audiomill.audio.links import Window, as_the_first, next_link, with_channels
from audiomill.audio.opened import BLOCK_FRAMES, Audio, check_header
from audiomill.audio.timeline import silence
from audiomill.errors import RecordingRejected

SNDFILE_HEADERS = (b"RIFF", b"fLaC", b"FORM", b"RF64", b".snd")
"""Of formats that state their length in a few bytes."""
LOOK_BACK_BYTES = 1 << 18
"""libsndfile reads ahead of what it has given."""
RESYNCHRONISED = ("FLAC", "MP3", "MPEG")
"""Formats whose frames can be found again behind a damaged place."""
LOSSY_FORMATS = ("MP3", "MPEG", "OGG")
END_OF_UNKNOWN = "psf_fseek() failed"
"""libsndfile at the end of a FLAC stream that does not state its length."""


def _first_frame(handle: IO[bytes], head: bytes, file: soundfile.SoundFile, start_s: float) -> int:
    """Goes to the frame at `start_s` and returns it; raises RecordingRejected behind the end of the audio."""
    first = int(start_s * file.samplerate + 0.5)
    if not first:
        return 0
    if first >= file.frames and next_link(handle, head, 1) is None:
        length_s = file.frames / file.samplerate
        detail = f"expected a span inside {length_s:.3f} s, got start {start_s} s"
        raise RecordingRejected("decode", "offset_out_of_range", detail)
    first = min(first, int(file.frames))
    _skip_frames(file, first, start_s)
    return first


@contextmanager
def open_audio(handle: IO[bytes], start_s: float = 0.0, track: str = "default") -> Iterator[Audio]:
    """Opens encoded audio.

    Args:
        handle: seekable binary file at its start.
        start_s: seconds to leave out at the beginning.
        track: which audio track of a container, see `audiomill.audio.ffmpeg`.

    Yields:
        Audio with float32 (samples, channels) blocks in [-1, 1] from `start_s` on.

    Raises:
        RecordingRejected: empty, not audio, without audio stream, or with an absurd header.
    """
    head = handle.read(64)
    handle.seek(0)
    if not head:
        raise RecordingRejected("read", "empty", "expected encoded audio, got 0 bytes")
    doubt, why, file = why_not_believed(handle, head), "", None
    if doubt is None:
        try:
            file = soundfile.SoundFile(handle)
        except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
            why = str(error).split(">: ")[-1].rstrip(".")
    if file is None:
        with _opened_otherwise(handle, head, start_s, track, why, doubt) as audio:
            yield audio
        return
    with file:
        announced = _announced_frames(handle, head, file)
        check_header(file.samplerate, file.channels)
        first = _first_frame(handle, head, file, start_s)
        rest = None if announced is None else max(0, announced - first)
        is_exact = file.format not in LOSSY_FORMATS
        audio = Audio(file.samplerate, file.channels, rest, iter(()), is_exact)
        audio.blocks_TK = _with_further_links(handle, head, file, audio, first, start_s)
        behind = bytes_behind(handle) if wav.is_wav(head) else 0
        if behind:
            audio.notes.append(f"{behind} bytes follow the data that the header states, and are left out")
        if head.startswith(b"OggS") and not _ogg_is_complete(handle):
            audio.problems.append("the Ogg stream ends without its last page")
        yield audio


@contextmanager
def _opened_otherwise(
    handle: IO[bytes], head: bytes, start_s: float, track: str, why: str, doubt: str | None
) -> Iterator[Audio]:
    """What libsndfile does not open (`why`), or would not read as it is (`doubt`)."""
    handle.seek(0)
    if wav.is_wav(head):
        check_header(*wav.stated_format(handle))
    begin = next_link(handle, head, 1) if head[:4] in (b"RIFF", b"FORM") else None
    if head[4:8] == b"ftyp":
        begin = second_mp4(handle)
    if begin is not None:  # it knows none of these behind another
        with open_audio(io.BufferedReader(Window(handle, 0, begin))) as audio:
            audio.num_announced = None
            joined = chain(audio.blocks_TK, _link_blocks(handle, begin, audio))
            audio.blocks_TK = _without_first(joined, int(start_s * audio.sample_rate + 0.5))
            yield audio
        return
    handle.seek(0)
    with open_with_ffmpeg(handle, start_s, track, doubt or why) as audio:
        stated = stated_frames(handle, head)
        audio.notes += [f"{doubt}: read to its end"] if doubt and doubt != UNTOLD_LENGTH else []
        if stated is not None and doubt is None:  # FFmpeg takes the file's size for what the header says
            audio.num_announced = max(0, stated - int(start_s * audio.sample_rate + 0.5))
        yield audio


def planned_duration_s(handle: IO[bytes]) -> float | None:
    """Duration to plan with: by header, by the last time stamp, or estimated by frames at places all over a stream that
    states none. None where only decoding can tell. Never raises for bad audio."""
    head = handle.read(64)
    handle.seek(0)
    if mpeg.is_stream(head):
        tag = mpeg.stated(handle)
        frame = None if tag is None else mpeg.frame_at(handle)
        if tag is not None and tag.num_samples and frame is not None:
            return tag.num_samples / frame.sample_rate
        return mpeg.estimated_s(handle)
    if head[:4] in SNDFILE_HEADERS and head[8:12] != b"AVI ":
        return _header_duration_s(handle, head) or estimated_duration_s(handle)
    return container_duration_s(handle) or estimated_duration_s(handle)


def _header_duration_s(handle: IO[bytes], head: bytes) -> float | None:
    if stated_frames(handle, head) is None and not head.startswith(b"fLaC"):
        return None  # a placeholder
    handle.seek(0)
    try:
        with soundfile.SoundFile(handle) as file:
            return float(file.frames / file.samplerate) if file.samplerate and 0 < file.frames < 1 << 40 else None
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        return None


def _with_further_links(
    handle: IO[bytes], head: bytes, file: Any, audio: Audio, first: int, start_s: float
) -> Iterator[NDArray[np.float32]]:
    """The blocks of a stream, and of those that were written behind it in one file, all as the first one is."""
    num_given, is_damaged = first, bool(audio.problems)
    for block in _soundfile_blocks(file, audio, first):
        num_given += len(block)
        yield block
    if audio.problems and not is_damaged and file.format in RESYNCHRONISED and num_given < file.frames:
        for block in _behind_the_damage(handle, audio, num_given, int(file.frames)):
            num_given += len(block)
            yield block
    if num_given >= file.frames and not is_damaged and not audio.num_lost:
        audio.problems.clear()  # the decoder took what follows (a tag, another stream) for a part of this one
    begin = next_link(handle, head, max(1, handle.tell() - LOOK_BACK_BYTES))
    if begin is None:
        return
    audio.num_announced = None  # of the first one alone
    left = max(0, int(start_s * audio.sample_rate + 0.5) - int(file.frames))
    yield from _without_first(_link_blocks(handle, begin, audio), left)


def _behind_the_damage(
    handle: IO[bytes], audio: Audio, num_given: int, num_frames: int
) -> Iterator[NDArray[np.float32]]:
    """What FFmpeg still finds behind a place where libsndfile gave up, with silence for what is lost in between.

    Frames of these formats do not say reliably when they sound, but the end does: what is missing of the announced length is
    missing here. It is counted in a first pass.
    """
    start_s = num_given / audio.sample_rate

    def rest() -> Iterator[NDArray[np.float32]]:
        handle.seek(0)
        with open_with_ffmpeg(handle, start_s, "default", "damaged", fills=False) as result:
            if result.sample_rate == audio.sample_rate:
                for block in result.blocks_TK:
                    yield with_channels(block, audio.num_channels)

    at = handle.tell()
    try:
        result = min(num_frames - num_given, sum(map(len, rest())))
        if not result:
            return
        audio.num_lost = num_frames - num_given - result
        audio.problems.append(f"nothing between {start_s:.3f} and {start_s + audio.num_lost / audio.sample_rate:.3f} s")
        yield from silence(audio.num_lost, audio.num_channels)
        for block in rest():
            yield block[:result]
            result -= min(result, len(block))
    except RecordingRejected:
        return  # nothing more is there
    finally:
        handle.seek(at)


def _without_first(blocks: Iterator[NDArray[np.float32]], count: int) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        if len(block) > count:
            yield block[count:]
        count = max(0, count - len(block))


def _link_blocks(handle: IO[bytes], begin: int, audio: Audio) -> Iterator[NDArray[np.float32]]:
    end = handle.seek(0, io.SEEK_END)
    view = io.BufferedReader(Window(handle, begin, end - begin))
    try:
        with open_audio(view) as link:
            blocks = as_the_first(link, audio.sample_rate, audio.num_channels)
            yield from blocks
            audio.problems += [problem for problem in link.problems if problem not in audio.problems]
    except RecordingRejected as rejected:
        audio.problems.append(f"from byte {begin}: {rejected.detail}")


def _skip_frames(file: Any, count: int, start_s: float) -> None:
    """Seeks where the format can, else reads on.

    Raises:
        RecordingRejected: a file that does not state its length ends before.
    """
    if file.seekable():
        try:
            file.seek(count)
        except (soundfile.LibsndfileError, RuntimeError):
            raise RecordingRejected(
                "decode", "offset_out_of_range", f"expected audio from {start_s} s on, got none"
            ) from None
        return
    while count > 0 and (num_read := len(file.read(min(count, BLOCK_FRAMES), dtype="float32"))):
        count -= num_read


def _soundfile_blocks(file: Any, audio: Audio, num_read: int) -> Iterator[NDArray[np.float32]]:
    while True:
        block = np.full((BLOCK_FRAMES, file.channels), np.nan, np.float32)
        try:
            block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True, out=block)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            if audio.num_announced is not None or END_OF_UNKNOWN not in str(error):
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
        position = int(file.tell())
        return filled if position < 0 else max(0, min(filled, position - num_read))
    except (soundfile.LibsndfileError, RuntimeError):
        return filled


def _announced_frames(handle: IO[bytes], head: bytes, file: Any) -> int | None:
    """Frames that the header promises, also where the data is cut short."""
    if head[:4] in STATES:
        return stated_frames(handle, head)
    return int(file.frames) if 0 < file.frames < 1 << 48 else None


def _ogg_is_complete(handle: IO[bytes]) -> bool:
    at = handle.tell()
    end = handle.seek(0, io.SEEK_END)
    handle.seek(max(0, end - (1 << 16)))
    tail = handle.read()
    handle.seek(at)
    page = tail.rfind(b"OggS")
    return page < 0 or page + 5 >= len(tail) or bool(tail[page + 5] & 4)
