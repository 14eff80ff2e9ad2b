"""How far a piece is, and what workers leave in the output when a part fails: the driver reads it there, because engines drop what failed."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Iterator

import pyarrow as pa

from audiomill.audio.clock import seconds_from_samples
from audiomill.errors import WorkerDiedError, WorkerTimeoutError
from audiomill.storage.fs import Place
from audiomill.storage.part_files import part_name

SUFFIX = ".progress.json"
LOCAL_EVERY_S, REMOTE_EVERY_S = 2.0, 15.0


def progress_place(output: Place, part: int, piece: int) -> Place:
    """Where it is written how far a piece is."""
    return output.join("_pieces", f"{part_name(part)}-{piece:05d}{SUFFIX}")


def forget_progress(output: Place, part: int) -> None:
    """Of pieces that were given up."""
    for name in output.join("_pieces").names():
        if name.startswith(part_name(part)) and name.endswith(SUFFIX):
            output.join("_pieces", name).remove()


class Heartbeat:
    """Counts what models have heard of one piece; writes at most every few seconds, and nothing for quick pieces.

    Args:
        output: the run's.
        piece: one row of `schema.PIECE`.
    """

    def __init__(self, output: Place, piece: pa.Table) -> None:
        (part, number, segments) = (piece.column(name)[0].as_py() for name in ("part", "piece", "segments"))
        self._place = progress_place(output, part, number)
        self._every_s = LOCAL_EVERY_S if output.is_local else REMOTE_EVERY_S
        self._segments = len(segments)
        self._audio = sum(each["num_samples"] - each["left"] - each["right"] for each in segments)
        self._segments_done = self._audio_done = 0
        self._written = time.monotonic()

    def add(self, num_segments: int, num_samples: int) -> None:
        """Some more segments have their first answer."""
        self._segments_done = min(self._segments, self._segments_done + num_segments)
        self._audio_done = min(self._audio, self._audio_done + num_samples)
        if time.monotonic() - self._written >= self._every_s:
            self._written = time.monotonic()
            progress = {
                "segments": self._segments,
                "segments_done": self._segments_done,
                "audio_s": seconds_from_samples(self._audio),
                "audio_done_s": seconds_from_samples(self._audio_done),
                "at": time.time(),
            }
            with contextlib.suppress(OSError):  # it is for people; the run's own files will tell that the disk is full
                self._place.write(json.dumps(progress).encode())


FAILED_SUFFIX, HUNG_SUFFIX = ".failed.txt", ".hung.txt"


def failure_place(output: Place, part: int) -> Place:
    """Where a worker leaves the traceback of a part that failed."""
    return output.join("_pieces", part_name(part) + FAILED_SUFFIX)


def hung_place(output: Place, part: int) -> Place:
    """Where a worker says that a model hung on a part."""
    return output.join("_pieces", part_name(part) + HUNG_SUFFIX)


def failure_of(output: Place, part: int) -> str | None:
    """Last line of the traceback that a worker left; None if it left none."""
    return _last_line(failure_place(output, part))


def hung_on(output: Place, part: int) -> str | None:
    """How a model hung on a part; None if it did not."""
    return _last_line(hung_place(output, part))


def forget_failures(output: Place, part: int) -> None:
    """Of an earlier run."""
    for place in (failure_place(output, part), hung_place(output, part)):
        place.remove()


def _last_line(place: Place) -> str | None:
    return place.read().decode().strip().splitlines()[-1] if place.exists() else None


@contextlib.contextmanager
def reported(part: int, notes: Place) -> Iterator[None]:
    """Leaves what is known about a failing part. A process that died tells nothing: it may not have been its fault."""
    try:
        yield
    except WorkerTimeoutError as hung:
        hung_place(notes, part).write(str(hung).encode())
        raise
    except WorkerDiedError:
        raise
    except Exception:
        failure_place(notes, part).write(traceback.format_exc().encode())
        raise
