"""How long the models take on this device: against the amount of audio, and against the size of a batch."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import psutil
import pyarrow as pa

from audiomill import schema
from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.models.device import device_memory
from audiomill.models.task import LoadedTask
from audiomill.stages.infer import infer_piece
from audiomill.stages.spec import RunSpec

LONG_S = 45.0
"""A measurement that would take longer is made on less audio."""
SHORT_S = 5.0
"""Of each batch size that is tried."""
COPIES = 3
"""Of the sample, laid end to end, for the upper end of the curve."""
STEPS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the default batch that are tried."""
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


def repeated(piece: pa.Table, copies: int) -> pa.Table:
    """A piece several times over, each copy of recordings of its own."""
    (row,) = piece.to_pylist()
    cuts = [
        {**cut, "recording_id": f"{cut['recording_id']}{number}"} for number in range(copies) for cut in row["cuts"]
    ]
    return pa.Table.from_pylist([{**row, "cuts": cuts, "pcm": row["pcm"] * copies}], schema=schema.PIECE)


def shortened(piece: pa.Table, share: float) -> pa.Table:
    """Every so many-th cut of a piece, about `share` of them."""
    (row,) = piece.to_pylist()
    step = max(1, round(1 / share))
    at, cuts, pcm = 0, [], []
    for number, cut in enumerate(row["cuts"]):
        size = 2 * (cut["left"] + cut["stop"] - cut["start"] + cut["right"])
        if number % step == 0:
            cuts.append(cut)
            pcm.append(row["pcm"][at : at + size])
        at += size
    return pa.Table.from_pylist([{**row, "cuts": cuts, "pcm": b"".join(pcm)}], schema=schema.PIECE)


def audio_of(piece: pa.Table) -> float:
    """Seconds that the models see."""
    return len(piece.column("pcm")[0].as_py()) / 2 / MODEL_SAMPLE_RATE


def timed(piece: pa.Table, tasks: Sequence[LoadedTask], spec: RunSpec) -> Point:
    """Runs the infer stage once."""
    before = time.perf_counter()
    infer_piece(piece, tasks, spec.tables, 0)
    return Point(audio_of(piece), time.perf_counter() - before)


def curve(piece: pa.Table, tasks: Sequence[LoadedTask], spec: RunSpec, told: Callable[[str], None]) -> list[Point]:
    """Times of a third of the sample, all of it, and three copies: small parts fill batches less well."""
    timed(shortened(piece, 0.1), tasks, spec)  # the first call of all is slower
    points: list[Point] = []
    for name, share in (("a third of the sample", 1 / 3), ("the sample", 1.0), ("three copies of it", float(COPIES))):
        if points and points[-1].seconds * share / (points[-1].audio_s / audio_of(piece)) > LONG_S:
            break
        told(f"timing the models on {name}")
        chosen = shortened(piece, share) if share < 1 else repeated(piece, int(share)) if share > 1 else piece
        points.append(min((timed(chosen, tasks, spec) for _ in range(2)), key=lambda point: point.seconds))
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


def search(piece: pa.Table, tasks: Sequence[LoadedTask], spec: RunSpec, told: Callable[[str], None]) -> list[BatchSize]:
    """Tries batch sizes from small to large while memory is predicted to hold the next one."""
    default = tasks[0].spec.batch_samples / MODEL_SAMPLE_RATE
    timed(shortened(piece, 0.1), tasks, spec)  # the first call of all is slower
    once = timed(piece, tasks, spec)
    copies = min(math.ceil(2 * default / once.audio_s), int(SHORT_S / max(once.seconds, 1e-3)))
    piece = repeated(piece, copies) if copies > 1 else piece
    free, found = device_memory(spec.device), list[BatchSize]()
    for step in STEPS:
        size = default * step
        predicted = _predicted(found, size)
        if predicted is not None and predicted > MEMORY_SHARE * free:
            found.append(BatchSize(size, None, None, predicted))
            continue
        told(f"trying batches of {size:g} s")
        resized = [_with_batch(task, size) for task in tasks]
        with _peak(spec.device) as peak:
            point = timed(piece, resized, spec)
        found.append(BatchSize(size, point.seconds, peak(), predicted))
        if size >= audio_of(piece):
            break  # one batch holds all of it: larger ones are the same
    return found


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


def _predicted(found: Sequence[BatchSize], size: float) -> int | None:
    """Memory grows with the batch along the line through the last two that were tried."""
    known = [each for each in found if each.peak is not None]
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
