"""What workers leave in the output when a part fails: the driver reads it there, because engines drop what failed."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from audiomill.errors import WorkerDiedError, WorkerTimeoutError
from audiomill.storage.fs import Place
from audiomill.storage.part_files import part_name

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
