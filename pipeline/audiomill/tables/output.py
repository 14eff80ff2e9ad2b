"""What the rest of the house knows of a table that a job may ask for: one value a file.

Recordings, segments and rejections are written by every run; what follows them is an `Output` each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audiomill.audio.clock import seconds_from_samples
from audiomill.models.base import Prediction, RequestedOutputs, Transcript
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


def segment_id(cut: Mapping[str, Any]) -> str:
    """Recording id, channel and start sample."""
    channel = "" if cut["channel"] is None else f"-c{cut['channel']}"
    return f"{cut['recording_id']}{channel}-{cut['start']:010d}"


def frame_row(cut: Mapping[str, Any], task: TaskSpec, layer: int | None, stride: int) -> dict[str, Any]:
    hop = task.hop_of(layer)
    first = cut["start"] + (-cut["left"]) % hop
    return {
        "segment_id": segment_id(cut),
        "recording_id": cut["recording_id"],
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


class ModelRequest(NamedTuple):
    """A task with the shape of its checkpoint."""

    spec: TaskSpec
    shape: Shape


class Predictions(NamedTuple):
    """What models gave for the segments of a piece: `cuts` as in `schema.CUT`; `answers`: a sequence a task, an answer a
    segment; `texts`: in the same form, None where a task writes none."""

    cuts: Sequence[Mapping[str, Any]]
    tasks: Sequence[TaskSpec]
    answers: Sequence[Sequence[Prediction]]
    texts: Sequence[Sequence[Transcript | None]]


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
        documented: its schema, with the usual width where that depends on the model.
        config: dataclass of its options; None where it has none of its own.
        shorthand: the option that a plain value in a YAML file stands for.
        resolve: (configs, checkpoint, shape, storage options) -> fields of `RequestedOutputs`, and what other files say,
            by option.
        check: raises UsageError for configs of one job that cannot share a table.
        row_keys: what a row of a task is known by, for each kind of row.
        is_wanted: whether a task gives rows.
        schema: of a run.
        rows: of a piece, by segment.
        bytes_per_second: of audio, for one task.
        counted: what a ledger entry keeps of a part's rows, by name.
        reading: None for tables that are no training data.
    """

    name: str
    documented: pa.Schema
    config: type | None = None
    shorthand: str = ""
    resolve: Callable[
        [Sequence[Any], Checkpoint, Shape, dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]
    ] = lambda configs, checkpoint, shape, options: ({}, {})  # fmt: skip
    check: Callable[[Sequence[Any]], None] = lambda configs: None
    row_keys: Callable[[TaskSpec], Sequence[tuple[Any, ...]]] = lambda spec: ()
    is_wanted: Callable[[RequestedOutputs], bool]
    schema: Callable[[Sequence[ModelRequest]], pa.Schema]
    rows: Callable[[Predictions, pa.Schema], pa.Table]
    bytes_per_second: Callable[[ModelRequest], float]
    counted: Callable[[pa.Table], dict[str, Any]] = lambda table: {}
    reading: Reading | None = None
