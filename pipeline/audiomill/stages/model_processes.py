"""Models as the engines see them: in a process of their own, which may hang, crash or be killed.

The process outlives a run, because loading its libraries takes seconds: the next run of this program takes it over.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from typing import Any

import psutil
import pyarrow as pa

from audiomill import errors
from audiomill.config.defaults import WALL_FACTOR
from audiomill.errors import RunError, UsageError, WorkerDiedError, WorkerTimeoutError
from audiomill.models.base import OnProgress
from audiomill.models.device import available_memory, usable_cores
from audiomill.stages.child_processes import Child, Idle
from audiomill.stages.spec import RunSpec
from audiomill.tables.assemble import stream_table, to_ipc

LOOK_S = 1.0
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "MKL_CBWR": "AUTO,STRICT"}
"""Threads sleep while they wait for each other: spinning ones would take the cores from whatever else runs. Products of
matrices have the same bits for any number of threads: MKL's conditional numerical reproducibility."""


_idle: Idle[Child] = Idle()


def _taken(verbose: bool) -> Child:
    """Folder and environment it is given when it loads."""
    environment = {**ENVIRONMENT, **os.environ}
    return _idle.take(verbose) or Child("audiomill.stages.model_worker", verbose, environment, verbose)


def end_waiting() -> None:
    """Ends the processes that wait: the next run starts as if it were the first."""
    _idle.end_all()


def start_ahead(verbose: bool) -> None:
    """Lets a process load its libraries while there is still something else to do."""
    process = _taken(verbose)
    with contextlib.suppress(WorkerDiedError):
        process.send(pickle.dumps(("import",)))
    _idle.leave(process)


class ModelProcesses:
    """The models of a run in a process that is replaced when it dies.

    Args:
        spec: the run.
        threads: that compute; None: as torch chooses.
    """

    def __init__(self, spec: RunSpec, threads: int | None = None) -> None:
        self._spec, self._threads = spec, threads
        self._process: Child | None = None
        self._is_busy = False
        try:
            with contextlib.suppress(WorkerDiedError):  # killed while it loads, as any process may be once
                self._loaded()
            self._loaded()
        except WorkerDiedError as death:
            self.close()
            gigabytes = available_memory() / 1e9
            raise RunError(
                f"the models could not be loaded: {death}; {gigabytes:.1f} GB are free now; "
                "use a smaller model, or a machine with more memory"
            ) from death
        except BaseException:
            self.close()
            raise

    def infer(
        self, piece: pa.Table, verify_segments: int, on_progress: OnProgress, threads: int | None = None
    ) -> pa.Table:
        """See `audiomill.stages.infer.infer_piece`; `threads`: that compute this piece, None: as before.

        Raises:
            WorkerDiedError: the process died. The next call starts another.
            WorkerTimeoutError: it was killed, because there was no sign of life for `--model-timeout`.
            RunFailed, UsageError: as the models raised it.
        """
        process = self._loaded()
        cores = threads or self._threads or usable_cores()
        limit = _Limit(process.pid, self._spec.engine.model_timeout, cores)
        self._send(("infer", to_ipc(piece), self._spec.tables, verify_segments, threads))
        while True:
            kind, *payload = self._answer(limit)
            if kind == "result":
                return stream_table(payload[0])
            limit.restart()
            on_progress(*payload)

    def memory(self) -> int:
        """Bytes that its process holds; 0 where there is none."""
        process = self._process
        with contextlib.suppress(psutil.Error):
            return 0 if process is None else int(psutil.Process(process.pid).memory_info().rss)
        return 0

    def close(self) -> None:
        """The process is kept for the next run, with small models, unless it is at work or holds a GPU."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._is_busy or self._spec.device.startswith("cuda"):
            process.end()
            return
        with contextlib.suppress(WorkerDiedError):  # whoever wants it next will see
            process.send(pickle.dumps(("rest",)))
        _idle.leave(process)

    def _loaded(self) -> Child:
        if self._process is None or not self._process.is_alive():
            self.close()
            self._process = _taken(self._spec.verbose)
            spec = self._spec
            wanted = spec.digest, spec.tasks, spec.storage_options, self._threads
            self._send(("load", os.getcwd(), dict(os.environ), *wanted))
            self._answer(None)
        return self._process

    def _send(self, message: tuple[Any, ...]) -> None:
        assert self._process is not None
        self._is_busy = True
        self._process.send(pickle.dumps(message))

    def _answer(self, limit: _Limit | None) -> tuple[Any, ...]:
        """The next thing that it tells."""
        assert self._process is not None
        while not self._process.has_message_within(LOOK_S):
            if limit is not None and (passed := limit.passed()) is not None:
                self._process.end()
                raise WorkerTimeoutError(passed)
        answer: tuple[Any, ...] = pickle.loads(self._process.receive())  # noqa: S301 - of our own child
        self._is_busy = answer[0] == "progress"
        if answer[0] == "failed":
            raise _raised(*answer[1:])
        return answer


class _Limit:
    """How long a process may go without a sign of life.

    It counts the seconds that the process computes, which a busy machine does not make more; the wall clock is ten times
    as patient.
    """

    def __init__(self, pid: int, seconds: float, cores: int) -> None:
        self._process, self._seconds, self._cores = psutil.Process(pid), seconds, cores
        self.restart()

    def restart(self) -> None:
        self._computed, self._since = self._cpu_s(), time.monotonic()

    def passed(self) -> str | None:
        """What was passed, in words; None: nothing yet."""
        computed, waited = self._cpu_s() - self._computed, time.monotonic() - self._since
        if computed > self._seconds * self._cores:
            return f"expected an answer within {self._seconds:g} s of computing (--model-timeout), got none"
        if waited > WALL_FACTOR * self._seconds:
            return f"expected an answer within {WALL_FACTOR} times {self._seconds:g} s (--model-timeout), got none"
        return None

    def _cpu_s(self) -> float:
        try:
            times = self._process.cpu_times()
        except psutil.Error:  # dead: whoever listens will notice
            return 0.0
        return float(times.user + times.system + times.children_user + times.children_system)


def _raised(name: str, message: str, trace: str) -> Exception:
    """The error of a model process, as one of this process."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, (UsageError, RunError)):
        return kind(message)
    error = RunError(f"the model process failed: {name}: {message}")
    error.__cause__ = RuntimeError(f"in the model process:\n{trace}")  # for --verbose; `add_note` is Python 3.11's
    return error
