"""Model processes on this machine: on a CPU one a core, which compute different pieces and so never wait for each other.

Two threads of one small product wait for each other more than they compute. What a piece gives does not depend on who
computes it, nor on the number of threads.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator

import psutil
import pyarrow as pa
import pyarrow.compute as pc

from audiomill.audio.clock import seconds_from_samples
from audiomill.errors import WorkerDied
from audiomill.models.device import usable_cores
from audiomill.stages.failures import reported
from audiomill.stages.heartbeat import Heartbeat
from audiomill.stages.models_apart import ModelsApart
from audiomill.stages.spec import RunSpec, canary_of
from audiomill.storage.fs import Place

ANOTHER_AFTER_S = 240.0
"""Of audio that every process so far was given: a short run would wait longer for the libraries of one more."""
MAX_SHARE_OF_MEMORY = 0.5
"""Of what is free, for one more process."""


def infer_all(pieces: Iterator[pa.Table], spec: RunSpec, notes: Place) -> Iterator[pa.Table]:
    """What the models made of each piece, in the order in which they finish.

    Args:
        pieces: rows of `schema.PIECE`.
        spec: the run.
        notes: takes what is known of pieces whose models died or hung; those are left out.
    """
    with contextlib.closing(_Team(pieces, spec, notes)) as team:
        yield from team.results()


def most_processes(device: str) -> int:
    """Cores that may compute: fewer where OMP_NUM_THREADS says so; one for a GPU."""
    if device != "cpu":
        return 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable_cores(), int(told)) if told.isdigit() and int(told) else usable_cores()


class _Team:
    """Threads that each drive a model process. The first one has all cores until there is enough to do for another."""

    def __init__(self, pieces: Iterator[pa.Table], spec: RunSpec, notes: Place) -> None:
        self._pieces, self._spec, self._notes = pieces, spec, notes
        self._most = most_processes(spec.device)
        self._done: queue.SimpleQueue[pa.Table | BaseException | None] = queue.SimpleQueue()
        self._taking = threading.Lock()  # held while a piece is waited for
        self._lock = threading.Lock()  # never held while anything is waited for
        self._members = list[ModelsApart]()
        self._num_threads, self._seconds, self._is_closed = 0, 0.0, False

    def results(self) -> Iterator[pa.Table]:
        self._start()
        while self._num_threads:
            found = self._done.get()
            if found is None:
                with self._lock:
                    self._num_threads -= 1
            elif isinstance(found, BaseException):
                raise found
            else:
                yield found

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            for member in self._members:
                member.close()

    def _start(self) -> None:
        with self._lock:
            self._num_threads += 1
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            member = self._member()
            while member is not None and (piece := self._next()) is not None:
                result = self._inferred(piece, member)
                if result is not None:
                    self._done.put(result)
            self._done.put(None)
        except BaseException as error:  # handed to the thread that waits, which raises it
            self._done.put(error)

    def _member(self) -> ModelsApart | None:
        found = ModelsApart(self._spec)
        with self._lock:
            if not self._is_closed:
                self._members.append(found)
                return found
        found.close()
        return None

    def _next(self) -> pa.Table | None:
        """The next piece; whoever takes it sees to it that there are enough processes."""
        with self._taking:
            piece = None if self._is_closed else next(self._pieces, None)
            if piece is not None:
                self._seconds += _audio_s(piece)
                if self._num_threads < self._most and self._has_room():
                    self._start()
            return piece

    def _has_room(self) -> bool:
        """Whether there is enough to do for one more process, and memory."""
        if self._seconds < ANOTHER_AFTER_S * self._num_threads:
            return False
        return self._members[0].memory() < MAX_SHARE_OF_MEMORY * psutil.virtual_memory().available

    def _inferred(self, piece: pa.Table, member: ModelsApart) -> pa.Table | None:
        """What the models made of a piece; None where they died or hung, of which notes are left."""
        threads = max(1, self._most // self._num_threads) if self._most > 1 else None
        with contextlib.suppress(WorkerDied), reported(piece.column("part")[0].as_py(), self._notes):
            return member.infer(piece, canary_of(piece, self._spec), Heartbeat(self._notes, piece).heard, threads)
        return None


def _audio_s(piece: pa.Table) -> float:
    """Of all segments; a piece may have thousands."""
    cuts = piece.column("cuts").combine_chunks().flatten()
    return seconds_from_samples(pc.sum(pc.subtract(cuts.field("stop"), cuts.field("start"))).as_py() or 0)
