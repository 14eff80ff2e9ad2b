"""What the rest of the house knows of a table that a job may ask for: one value a file.

Recordings, segments and rejections are written by every run; what follows them is an `Output` each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audiomill.audio.clock import seconds_from_samples
from audiomill.audio.cutting.segment import Segment
from audiomill.config.jobs import JobConfig
from audiomill.models.batch import Batch
from audiomill.models.checkpoint import Checkpoint
from audiomill.models.task import Shape, TaskSpec
from audiomill.schema import column

NAMED = [
    column("segment_id", pa.string(), "joins segments.id"),
    column("recording_id", pa.string(), "joins recordings.id"),
    column("model", pa.string(), "checkpoint as it was named"),
]
CLOCK = [
    column("frame_rate_hz", pa.float64(), "frames a second", "Hz"),
    column("first_frame_s", pa.float64(), "frame i stands for the time from first_frame_s + i / frame_rate_hz on", "s"),
]


def frame_row(segment: Segment, task: TaskSpec, layer: int | None, stride: int) -> dict[str, Any]:
    """The columns that tables of frames have in common."""
    hop = task.hop_of(layer)
    first = segment.start + (-segment.left) % hop
    return {
        "segment_id": segment.id,
        "recording_id": segment.recording_id,
        "model": task.label,
        "frame_rate_hz": task.frame_rate(layer) / stride,
        "first_frame_s": seconds_from_samples(first),
    }


def plain_columns(rows: Sequence[Mapping[str, Any]], kind: pa.Schema, but: Sequence[str]) -> dict[str, pa.Array]:
    return {
        field.name: pa.array([row[field.name] for row in rows], field.type) for field in kind if field.name not in but
    }


def lists(arrays: Sequence[NDArray[Any] | None], dtype: type[np.generic]) -> pa.Array:
    """A list column; None gives null."""
    present = [a for a in arrays if a is not None]
    flat = pa.array(np.concatenate(present) if present else np.zeros(0, dtype))
    edges = offsets([0 if a is None else len(a) for a in arrays])
    mask = pa.array([a is None for a in arrays], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(edges), flat, mask=mask)


def offsets(sizes: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


def in_segment_order(rows: pa.Table, tables: Mapping[str, pa.Table]) -> pa.Table:
    """Rows of segments that the part has, in the order of its segments table."""
    return in_order_of(rows, "segment_id", tables["segments"].column("id"))


def in_order_of(table: pa.Table, column: str, order: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Rows whose `column` is in `order`, arranged like it; equal ones keep their order, others are left out."""
    at = pc.index_in(table.column(column), value_set=order)
    known, at = table.filter(pc.is_valid(at)), pc.drop_null(at).to_numpy()
    if at.size < 2 or (at[1:] >= at[:-1]).all():
        return known  # the usual case, without a copy
    return known.take(pa.array(at.argsort(kind="stable")))


class ModelRequest(NamedTuple):
    """A task with the shape of its checkpoint."""

    spec: TaskSpec
    shape: Shape


class OutputRun(NamedTuple):
    """A table of a run. `schema`: of what a piece gives; `options`: what its rows depend on, in a form of the output's own."""

    schema: pa.Schema
    options: Any = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How training code reads a table.

    Attributes:
        choose_by: columns by which rows are chosen, with their types.
        one_kind: of these, the columns that must have a single value in what is chosen.
        columns: that values are made of.
        values: (rows, number of the first row, chosen values) -> the array of a sample.
        time_axis: of the arrays, along which they differ in length.
        joins_rows: consecutive rows of a segment are one sample.
    """

    choose_by: Mapping[str, type]
    one_kind: tuple[str, ...]
    columns: tuple[str, ...]
    values: Callable[[pa.Table, int, Mapping[str, Any]], Any]
    time_axis: int = 0
    joins_rows: bool = False


@dataclass(frozen=True, kw_only=True)
class Output:
    """A table.

    Attributes:
        name: of its folder.
        documented: schemas of its tables by name, with the usual width where that depends on the model.
        config: dataclass of its options; None where it has none of its own.
        shorthand: the option that a plain value in a YAML file stands for.
        resolve: (configs, checkpoint, shape, storage options) -> fields of `RequestedOutputs`, and what other files say,
            by option.
        check: raises UsageError for configs of one job that cannot share a table.
        row_keys: what a row of a task is known by, for each kind of row.
        resolve_run: (job, its models) -> what a run writes; None: the job does not ask for it.
        rows: of a piece, by segment.
        finish: (tables of a part, rows of all its pieces, what the run writes) -> the tables with its own; None: the rows in
            the order of the segments are its one table.
        bytes_per_second: of audio, for one task.
        counted: what a ledger entry keeps of a part's rows, by name.
        reading: None for tables that are no training data.
    """

    name: str
    documented: Mapping[str, pa.Schema]
    config: type | None = None
    shorthand: str = ""
    resolve: Callable[
        [Sequence[Any], Checkpoint, Shape, dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]
    ] = lambda configs, checkpoint, shape, options: ({}, {})  # fmt: skip
    check: Callable[[Sequence[Any]], None] = lambda configs: None
    row_keys: Callable[[TaskSpec], Sequence[tuple[Any, ...]]] = lambda spec: ()
    resolve_run: Callable[[JobConfig, Sequence[ModelRequest]], OutputRun | None]
    rows: Callable[[Batch, OutputRun], pa.Table]
    finish: Callable[[dict[str, pa.Table], pa.Table, OutputRun], dict[str, pa.Table]] | None = None
    bytes_per_second: Callable[[ModelRequest], float] = lambda asked: 0.0
    counted: Callable[[pa.Table], dict[str, Any]] = lambda table: {}
    reading: Reading | None = None

    def part_schemas(self, run: OutputRun) -> dict[str, pa.Schema]:
        """Of the tables that a part has of it, by name."""
        return {name: run.schema if name == self.name else kind for name, kind in self.documented.items()}
