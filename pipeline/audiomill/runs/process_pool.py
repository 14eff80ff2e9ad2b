"""The process pool of this machine: model processes, on a CPU one a core, which compute different pieces and so never wait for each other.

Two threads of one small product wait for each other more than they compute. What a piece gives does not depend on who
computes it, nor on the number of threads.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from audiomill.audio.clock import seconds_from_samples
from audiomill.errors import WorkerDiedError
from audiomill.models.device import available_memory, usable_cores
from audiomill.stages.failures import Heartbeat, reported
from audiomill.stages.model_processes import ModelProcesses
from audiomill.stages.spec import RunSpec, segments_to_verify
from audiomill.storage.fs import Place

ANOTHER_AFTER_S = 240.0
"""Of audio that is planned, or was given, for every process so far: a short run would wait longer for the libraries of one more."""
MAX_SHARE_OF_MEMORY = 0.5
"""Of what is free, for one more process."""
ACTIVATION_BYTES = 4e9
"""Free beside the weights of one more process, where none has computed yet: Whisper tiny at work holds 1.3 GB."""


def infer_all(
    pieces: Iterator[pa.Table], is_work: Callable[[], bool], spec: RunSpec, notes: Place, planned_s: float = 0.0
) -> Iterator[pa.Table]:
    """What the models made of each piece, in the order in which they finish.

    Args:
        pieces: rows of `schema.PIECE`.
        is_work: whether one of them waits.
        spec: the run.
        notes: takes what is known of pieces whose models died or hung; those are left out.
        planned_s: of audio that will come, as far as it is known.
    """
    with contextlib.closing(_Team(pieces, is_work, spec, notes, planned_s)) as team:
        yield from team.results()


def most_processes(device: str) -> int:
    """Cores that may compute: fewer where OMP_NUM_THREADS says so; one for a GPU."""
    if device != "cpu":
        return 1
    omp_threads = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable_cores(), int(omp_threads)) if omp_threads.isdigit() and int(omp_threads) else usable_cores()


class Processes:
    """The model processes of a run on this machine. The first one has all cores until there is enough to do for another.

    Args:
        spec: the run.
        most: that may compute at once.
        planned_s: of audio that will come: processes that it is worth load at once, side by side.
    """

    def __init__(self, spec: RunSpec, most: int, planned_s: float = 0.0) -> None:
        self._spec, self._most, self._planned_s = spec, most, planned_s
        self._changed = threading.Condition()  # never held while a process loads or computes
        self._idle = [ModelProcesses(spec, self._share(1))]
        self._all = list(self._idle)
        self._num, self._seconds, self._is_closed = 1, 0.0, False

    @contextlib.contextmanager
    def one(self, is_work: Callable[[], bool] = lambda: True) -> Iterator[ModelProcesses | None]:
        """A process that nobody else uses meanwhile: waits until one is free, or worth starting because there is work. None: it
        is too late."""
        result = self._taken(is_work)
        try:
            yield result
        finally:
            if result is not None:
                with self._changed:
                    self._idle.append(result)
                    self._changed.notify_all()

    def infer(self, piece: pa.Table, process: ModelProcesses, notes: Place) -> pa.Table:
        """What the models made of a piece, see `audiomill.stages.infer.infer_piece`; notes take how they failed.

        Raises:
            WorkerDied, WorkerHung, RunFailed, UsageError: see `audiomill.stages.model_processes.ModelProcesses.infer`.
        """
        with self._changed:
            self._seconds += _audio_s(piece)
            threads = self._share(self._num)
            self._changed.notify_all()
        with reported(piece.column("part")[0].as_py(), notes):
            return process.infer(piece, segments_to_verify(piece, self._spec), Heartbeat(notes, piece).add, threads)

    def close(self) -> None:
        """Whoever waits gets none, whoever computes fails."""
        with self._changed:
            self._is_closed = True
            for process in self._all:
                process.close()
            self._changed.notify_all()

    def _share(self, num: int) -> int | None:
        """Threads of one of `num` processes; None: as torch chooses."""
        return max(1, self._most // num) if self._spec.device == "cpu" else None

    def _taken(self, is_work: Callable[[], bool]) -> ModelProcesses | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._idle or self._is_worth_another(is_work))
            if self._is_closed:
                return None
            if self._idle:
                return self._idle.pop()
            self._num += 1
        model_processes = ModelProcesses(self._spec, self._share(1))
        with self._changed:
            if not self._is_closed:
                self._all.append(model_processes)
                return model_processes
        model_processes.close()
        return None

    def _is_worth_another(self, is_work: Callable[[], bool]) -> bool:
        """Whether there is enough to do for one more process, and memory."""
        enough_s = ANOTHER_AFTER_S * self._num
        if self._num >= self._most:
            return False
        if self._seconds >= enough_s and is_work():
            return self._all[0].memory() < MAX_SHARE_OF_MEMORY * available_memory()
        return self._planned_s > enough_s and self._all[0].memory() + ACTIVATION_BYTES < available_memory()


class _Team:
    """Threads that each take a process, then a piece."""

    def __init__(
        self, pieces: Iterator[pa.Table], is_work: Callable[[], bool], spec: RunSpec, notes: Place, planned_s: float
    ) -> None:
        self._pieces, self._is_work, self._notes = pieces, is_work, notes
        self._most = most_processes(spec.device)
        self._processes = Processes(spec, self._most, planned_s)
        self._done: queue.SimpleQueue[pa.Table | BaseException | None] = queue.SimpleQueue()
        self._taking = threading.Lock()  # held while a piece is waited for

    def results(self) -> Iterator[pa.Table]:
        for _ in range(self._most):
            threading.Thread(target=self._work, daemon=True).start()
        num_working = self._most
        while num_working:
            result = self._done.get()
            if result is None:
                num_working -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result

    def close(self) -> None:
        self._processes.close()

    def _work(self) -> None:
        try:
            while self._has_worked():
                pass
            self._done.put(None)
        except BaseException as error:  # handed to the thread that waits, which raises it
            self._done.put(error)

    def _has_worked(self) -> bool:
        """One piece; False: there was none."""
        with self._processes.one(self._is_work) as process:
            if process is None:
                return False
            with self._taking:
                piece = next(self._pieces, None)
            if piece is None:
                return False
            with contextlib.suppress(WorkerDiedError):  # of which notes are left
                self._done.put(self._processes.infer(piece, process, self._notes))
            return True


def _audio_s(piece: pa.Table) -> float:
    """Of all segments; a piece may have thousands."""
    segments = piece.column("segments").combine_chunks().flatten()
    context = pc.add(segments.field("left"), segments.field("right"))
    return seconds_from_samples(pc.sum(pc.subtract(segments.field("num_samples"), context)).as_py() or 0)
