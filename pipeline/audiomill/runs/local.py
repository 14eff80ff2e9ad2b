"""Engine on this machine: decode processes ahead, the models in others, parts written here as they finish."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from audiomill import schema
from audiomill.errors import UsageError
from audiomill.models.device import usable_cores
from audiomill.runs.process_pool import infer_all
from audiomill.stages.cut import cut_part
from audiomill.stages.sandbox import Decoder
from audiomill.stages.spec import RunSpec
from audiomill.stages.write import save_result
from audiomill.storage.fs import Place

_Part = tuple[int, pa.Table]
PIECES_AHEAD = 2


def run_parts(
    parts: Sequence[_Part], spec: RunSpec, write: Callable[[pa.Table], pa.Table], waiting: dict[str, int] | None = None
) -> Iterator[pa.Table]:
    """Runs parts.

    Args:
        parts: part numbers with their plan rows.
        spec: the run.
        write: takes the packed result of each piece, see `audiomill.tables.assemble`.
        waiting: kept up to date with what waits for each stage.

    Yields:
        What `write` returns. Parts whose workers die or hang are missing.
    """
    with _Pieces(parts, spec) as pieces:
        planned_s = sum(pc.sum(rows.column("planned_s")).as_py() or 0.0 for _, rows in parts)
        for result in infer_all(iter(pieces), pieces.is_waiting, spec, spec.output, planned_s):
            if waiting is not None:
                waiting.update(pieces.waiting)
            yield write(result)


def publisher(target: str | None, address: str | None) -> None:
    """No exporter but our own.

    Raises:
        UsageError: Ray's was asked for.
    """
    if target == "ray":
        raise UsageError("--metrics ray: --engine local has no Ray; name a port or a FILE.prom")


def run_isolated(rows: dict[int, dict[str, Any]], spec: RunSpec, folder: Place) -> None:
    """Runs recordings apart from each other and saves their results.

    Args:
        rows: plan rows by a number that stands for them.
        spec: the run.
        folder: takes the results, under the row's number in place of a part's; see `stages.write.saved_results`.
    """
    parts = [(number, pa.Table.from_pylist([row], schema=schema.PLAN)) for number, row in rows.items()]
    spec = dataclasses.replace(spec, verify_segments={})
    with _Pieces(parts, spec) as pieces:
        for result in infer_all(iter(pieces), pieces.is_waiting, spec, folder):
            save_result(result, folder)


class _Pieces:
    """Pieces of all parts, made by threads that each drive a decode process; a few wait in a queue."""

    def __init__(self, parts: Sequence[_Part], spec: RunSpec) -> None:
        self._spec = spec
        self._todo: queue.SimpleQueue[_Part] = queue.SimpleQueue()
        for part in parts:
            self._todo.put(part)
        wanted = spec.engine.decode_workers or max(1, usable_cores() - 1)
        self._num_threads = max(1, min(wanted, len(parts)))
        self._ready: queue.Queue[pa.Table | BaseException | None] = queue.Queue(PIECES_AHEAD)
        self._stopping = threading.Event()

    def __enter__(self) -> _Pieces:
        self._threads = [threading.Thread(target=self._decode, daemon=True) for _ in range(self._num_threads)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            while thread.is_alive():
                try:
                    self._ready.get(timeout=0.05)
                except queue.Empty:
                    continue
        with contextlib.suppress(queue.Full):
            self._ready.put_nowait(GeneratorExit())  # for whoever still waits

    @property
    def waiting(self) -> dict[str, int]:
        """Parts that wait to be decoded, pieces that wait for the models."""
        return {"decode": self._todo.qsize(), "infer": self._ready.qsize()}

    def is_waiting(self) -> bool:
        """Whether a piece is ready."""
        return any(isinstance(each, pa.Table) for each in list(self._ready.queue))

    def __iter__(self) -> Iterator[pa.Table]:
        num_running = self._num_threads
        while num_running:
            ready = self._ready.get()
            if ready is None:
                num_running -= 1
            elif isinstance(ready, BaseException):
                raise ready
            else:
                yield ready

    def _decode(self) -> None:
        spec = self._spec
        decoder = Decoder(spec.decode, spec.segments, spec.storage_options, spec.verbose)
        try:
            while not self._stopping.is_set():
                try:
                    part, rows = self._todo.get_nowait()
                except queue.Empty:
                    break
                for piece in cut_part(part, rows.to_pylist(), decoder, spec.piece_samples):
                    self._ready.put(piece)
                    if self._stopping.is_set():
                        break
            self._ready.put(None)
        except BaseException as error:  # handed to the thread that waits, which raises it
            self._ready.put(error)
        finally:
            decoder.close()
