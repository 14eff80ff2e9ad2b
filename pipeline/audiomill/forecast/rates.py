"""How long the models take on this device: against the amount of audio, and against the size of a batch."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow as pa

from audiomill import schema
from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.models.device import device_memory
from audiomill.models.task import LoadedTask
from audiomill.stages.infer import infer_piece
from audiomill.stages.spec import RunSpec

_SHARES = (1 / 6, 1 / 2)
"""Of the sample that the models are timed on alone: small parts fill batches less well."""
SEARCH_SHARE = 1 / 6
_STEPS = (0.25, 0.5, 1.0, 2.0)
"""Of the default batch that are tried, where the sample fills more than one."""
TOLD_BYTES = 16_000_000
"""Smaller differences of a process's memory are noise."""
WORTH_IT = 0.93
"""Another batch size is named best if it takes less than this share of the default's time: below lies noise."""
MEMORY_SHARE = 0.8


class Point(NamedTuple):
    """Seconds that the models took for so much audio."""

    audio_s: float
    seconds: float


class BatchSize(NamedTuple):
    """One that was tried, or only looked at. `predicted`: bytes above the weights by the sizes below it; `peak`: as it
    was; `seconds`: None where memory would not have held it."""

    batch_seconds: float
    seconds: float | None
    peak: int | None
    predicted: int | None


def shortened(piece: pa.Table, share: float) -> pa.Table:
    """Every so many-th segment of a piece, about `share` of them."""
    (row,) = piece.to_pylist()
    step = max(1, round(1 / share))
    segments = row["segments"]
    chosen = {
        "segments": segments[::step],
        "pcm": _every(row["pcm"], [each["num_samples"] for each in segments], step),
        "waves": [
            _every(wave, [each["wave_samples"][number] for each in segments], step)
            for number, wave in enumerate(row["waves"])
        ],
    }
    return pa.Table.from_pylist([{**row, **chosen}], schema=schema.PIECE)


def _every(sound: bytes, lengths: Sequence[int], step: int) -> bytes:
    """Every so many-th of the stretches that follow each other."""
    edges = np.cumsum([0, *lengths]) * (len(sound) // max(1, sum(lengths)))
    return b"".join(sound[edges[at] : edges[at + 1]] for at in range(0, len(lengths), step))


def piece_seconds(piece: pa.Table) -> float:
    """Seconds that the models see."""
    return len(piece.column("pcm")[0].as_py()) / 2 / MODEL_SAMPLE_RATE


def timed(piece: pa.Table, tasks: Sequence[LoadedTask], spec: RunSpec) -> Point:
    """Runs the infer stage once."""
    before = time.perf_counter()
    infer_piece(piece, tasks, spec.tables, 0)
    return Point(piece_seconds(piece), time.perf_counter() - before)


class Budget:
    """Seconds that measurements may take, as they are spent.

    Args:
        seconds: in all.
    """

    def __init__(self, seconds: float) -> None:
        self._left, self._rate = seconds, 0.0

    def allows(self, audio_s: float) -> bool:
        """Whether the models may be given so much audio, by what they have taken so far."""
        return self._rate * audio_s <= self._left

    def spent(self, point: Point) -> Point:
        self._left -= point.seconds
        self._rate = point.seconds / max(point.audio_s, 1e-9)
        return point


def curve(
    piece: pa.Table, tasks: Sequence[LoadedTask], spec: RunSpec, budget: Budget, log: Callable[[str], None]
) -> list[Point]:
    """Times of shares of the sample, the smallest always."""
    points: list[Point] = []
    for share in _SHARES:
        chosen = shortened(piece, share)
        if points and (piece_seconds(chosen) <= points[-1].audio_s or not budget.allows(piece_seconds(chosen))):
            break
        log(f"timing the models alone on {piece_seconds(chosen):.0f} s")
        points.append(budget.spent(timed(chosen, tasks, spec)))
    return points


def seconds_for(points: Sequence[Point], audio_s: float) -> float:
    """Time for so much audio at once: between two measured points, or on along the line through the last two."""
    if audio_s <= 0:
        return 0.0
    if len(points) == 1:
        return points[0].seconds * audio_s / points[0].audio_s
    pairs = list(pairwise(points))
    low, high = next((pair for pair in pairs if audio_s <= pair[1].audio_s), pairs[-1])
    slope = max(0.0, (high.seconds - low.seconds) / max(high.audio_s - low.audio_s, 1e-9))
    return max(low.seconds + slope * (audio_s - low.audio_s), points[0].seconds * audio_s / points[0].audio_s * 0.1)


def search_batch_size(
    piece: pa.Table, tasks: Sequence[LoadedTask], spec: RunSpec, budget: Budget, log: Callable[[str], None]
) -> list[BatchSize]:
    """Tries batch sizes around the default, from small to large, while the budget lasts and memory is predicted to hold
    the next one. None where the audio fits one batch of any: they are all the same then."""
    default = tasks[0].spec.batch_samples / MODEL_SAMPLE_RATE
    piece = shortened(piece, SEARCH_SHARE)
    audio_s = piece_seconds(piece)
    if audio_s <= _STEPS[0] * default:
        return []
    free, result = device_memory(spec.device), list[BatchSize]()
    for step in _STEPS:
        size = default * step
        predicted = _predicted(result, size)
        if predicted is not None and predicted > MEMORY_SHARE * free:
            result.append(BatchSize(size, None, None, predicted))
            continue
        if not budget.allows(audio_s):
            break
        log(f"trying batches of {size:g} s on {audio_s:.0f} s")
        resized = [_with_batch(task, size) for task in tasks]
        with _peak(spec.device) as peak:
            point = budget.spent(timed(piece, resized, spec))
        used = peak()
        result.append(BatchSize(size, point.seconds, used if used >= TOLD_BYTES else None, predicted))
        if size >= audio_s:
            break  # one batch holds all of it: larger ones are the same
    return result


def best(tried: Sequence[BatchSize], default: float) -> float:
    """The fastest size; the default unless another is clearly faster."""
    timed_ = [each for each in tried if each.seconds is not None]
    usual = next((each.seconds for each in timed_ if each.batch_seconds == default), None)
    if usual is None and len(timed_) == len(tried) and timed_:
        usual = timed_[-1].seconds  # that batch held all there was, as the default would have
    fastest = min(timed_, key=lambda each: each.seconds or 0.0, default=None)
    if fastest is None or fastest.seconds is None:
        return default
    return fastest.batch_seconds if usual is None or fastest.seconds < WORTH_IT * usual else default


def _with_batch(task: LoadedTask, seconds: float) -> LoadedTask:
    spec = dataclasses.replace(task.spec, batch_samples=samples_from_seconds(seconds))
    return dataclasses.replace(task, spec=spec)


def _predicted(batch_sizes: Sequence[BatchSize], size: float) -> int | None:
    """Memory grows with the batch along the line through the last two that were tried."""
    known = [batch_size for batch_size in batch_sizes if batch_size.peak is not None]
    if len(known) < 2:
        return None
    low, high = known[-2:]
    assert low.peak is not None and high.peak is not None
    slope = max(0.0, (high.peak - low.peak) / (high.batch_seconds - low.batch_seconds))
    return int(high.peak + slope * (size - high.batch_seconds))


@contextmanager
def _peak(device: str) -> Iterator[Callable[[], int]]:
    """Largest memory use inside the block, above that at its start."""
    if device.startswith("cuda"):
        from audiomill.models.device import peak_meter

        yield peak_meter(device)
        return
    process, stop = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    seen = [before]

    def watch() -> None:
        while not stop.wait(0.02):
            seen.append(process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: max(seen) - before
    finally:
        stop.set()
        thread.join()


def as_rows(tried: Sequence[BatchSize]) -> list[dict[str, Any]]:
    """For JSON."""
    return [each._asdict() for each in tried]
