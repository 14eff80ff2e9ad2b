"""Child processes that answer over pipes. Starting one takes half a second: who is done with one leaves it for the next."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
from typing import NamedTuple

from audiomill.models.device import usable_cores


class _Idle(NamedTuple):
    """A process that waits, and what it was started with."""

    process: subprocess.Popen[bytes]
    origin: tuple[object, ...]


_idle: list[_Idle] = []
_origins: dict[int, tuple[object, ...]] = {}
"""What each running process was started with, by its number."""


def take(start: str, verbose: bool) -> subprocess.Popen[bytes]:
    """A process that runs `start`, isolated: what is installed comes before this process's other folders, so that no file
    of the user beside the audio (a json.py, say) is run in place of a library's.

    Args:
        start: Python code; `sys.argv[1:]` are the folders to add.
        verbose: let its libraries speak on stderr.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    folders = [folder for folder in sys.path if folder]
    origin = (start, verbose, *folders, *sorted(environment.items()))
    while (found := _popped()) is not None:
        if found.origin == origin and found.process.poll() is None:
            return found.process
        end(found.process)
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", start, *folders],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if verbose else subprocess.DEVNULL,
        env=environment,
    )
    _origins[process.pid] = origin
    return process


def give_back(process: subprocess.Popen[bytes]) -> None:
    """Of a process that has answered everything it was asked."""
    if process.poll() is not None or len(_idle) >= usable_cores():
        end(process)
    else:
        _idle.append(_Idle(process, _origins[process.pid]))


def end(process: subprocess.Popen[bytes]) -> int:
    """Kills it; its exit status."""
    process.kill()
    status = process.wait()
    _origins.pop(process.pid, None)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    return status


@atexit.register
def end_idle() -> None:
    while (found := _popped()) is not None:
        end(found.process)


def _popped() -> _Idle | None:
    with contextlib.suppress(IndexError):  # threads take them at once
        return _idle.pop()
    return None


def _forget() -> None:
    """In a fork: the pipes are its parent's."""
    _idle.clear()


os.register_at_fork(after_in_child=_forget)
