"""The model process, started by `audiomill.stages.model_processes`. A crash or a hang ends only this.

Protocol: Python values over a socket between a process and its own child, so pickle meets nothing foreign; Arrow tables
travel as bytes of an Arrow stream. Told `import` or `rest` it says nothing. Asked `load` it answers `loaded`; asked
`infer` it answers `progress` (how far it is, and that it lives) any number of times and then `result`. `failed` tells an error.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
import time
import traceback
from typing import Any

import psutil

from audiomill.models.load import import_libraries, load_tasks
from audiomill.models.task import LoadedTask
from audiomill.models.watchdog import on_heartbeat
from audiomill.stages.child_processes import parent_channel
from audiomill.stages.infer import infer_piece
from audiomill.tables.assemble import stream_table, to_ipc

BEAT_EVERY_S = 0.2
KEPT_BYTES = 2**30
"""A process that waits for the next run keeps its models if it holds no more: that run may want the same."""


def main() -> None:
    """Serves until the parent is gone."""
    channel = parent_channel()
    requests: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    threading.Thread(target=_watch_parent, args=(channel, requests), daemon=True).start()
    tasks: list[LoadedTask] = []
    what: object = None
    while True:
        kind, *given = requests.get()
        try:
            if kind == "import":
                import_libraries()
            elif kind == "rest":
                if psutil.Process().memory_info().rss > KEPT_BYTES:
                    tasks, what = [], None
            elif kind == "load":
                folder, environment, *wanted = given  # first of all the digest of what changes the run's results
                _move(folder, environment)
                if wanted != what:
                    tasks, what = [], None  # before the next ones need the memory
                    tasks, what = load_tasks(*wanted[1:]), wanted
                _send(channel, ("loaded",))
            else:
                _send(channel, ("result", _inferred(channel, tasks, *given)))
        except Exception as error:
            _send(channel, ("failed", type(error).__name__, str(error), traceback.format_exc()))


def _send(channel: Any, answer: tuple[Any, ...]) -> None:
    channel.send_bytes(pickle.dumps(answer))


def _watch_parent(channel: Any, requests: queue.SimpleQueue[tuple[Any, ...]]) -> None:
    """Ends this process with its parent, whatever it computes."""
    try:
        while True:
            requests.put(pickle.loads(channel.recv_bytes()))  # noqa: S301 - of our own parent
    except (EOFError, OSError):
        os._exit(0)


def _move(folder: str, environment: dict[str, str]) -> None:
    """To the folder and the environment that the parent has now."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def _inferred(
    channel: Any, tasks: list[LoadedTask], piece: bytes, tables: Any, verify_segments: int, threads: int | None
) -> bytes:
    pending, sent = [0, 0], time.monotonic()
    if threads is not None and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)

    def update_progress(num_segments: int, num_samples: int) -> None:
        nonlocal sent
        pending[:] = pending[0] + num_segments, pending[1] + num_samples
        if time.monotonic() - sent >= BEAT_EVERY_S:
            _send(channel, ("progress", *pending))
            pending[:], sent = (0, 0), time.monotonic()

    with on_heartbeat(lambda: update_progress(0, 0)):
        return to_ipc(infer_piece(stream_table(piece), tasks, tables, verify_segments, update_progress))
