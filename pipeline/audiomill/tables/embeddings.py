"""The embeddings table: hidden states of the layers that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audiomill.config.jobs import JobConfig
from audiomill.config.representations import EmbeddingsConfig
from audiomill.errors import UsageError
from audiomill.models.base import VectorRequest
from audiomill.models.batch import Batch
from audiomill.models.checkpoint import Checkpoint
from audiomill.models.task import Shape, TaskSpec
from audiomill.models.vectors.requested_outputs import settled_vectors
from audiomill.schema import column
from audiomill.tables.output import (
    CLOCK,
    NAMED,
    ModelRequest,
    Output,
    OutputRun,
    Reading,
    frame_row,
    lists,
    offsets,
    plain_columns,
)

VALUE_TYPES = {"fp16": pa.float16(), "fp32": pa.float32(), "int8": pa.int8()}
BYTES_PER_VALUE = {"fp16": 2, "fp32": 4, "int8": 1}
POOLED_HZ = 0.1
"""Pooled vectors count as one in ten seconds when sizes are forecast."""


def schema_of(values: pa.DataType) -> pa.Schema:
    """`values` is a vector, or a list of vectors where frames are kept."""
    return pa.schema(
        [
            *NAMED,
            column(
                "layer",
                pa.int16(),
                "hidden state: 0 is the input of the first layer, 9 the output of the ninth; -1: the sum of all, weighted by --layer-weights",
            ),
            column("pool", pa.string(), "none, mean, mean+std or max; mean/speech: over frames with speech alone"),
            column("num_frames", pa.int32(), "vectors in the row, or frames that were pooled"),
            *CLOCK,
            column("values", values, "the vector, or a list of vectors, one a frame"),
            column("scale", pa.list_(pa.float32()), "int8: values times this, one a vector; else null", nullable=True),
        ]
    )


def values_type(requested: Sequence[tuple[int, VectorRequest]]) -> pa.DataType:
    """Type of `embeddings.values` for a run.

    A vector has a fixed size unless the run mixes widths; a row is one vector where everything is pooled, else a
    list of vectors.

    Args:
        requested: of the run, each with the width of its hidden state; all have one dtype.
    """
    sizes = {width * (2 if want.pool == "mean+std" else 1) for width, want in requested}
    value = VALUE_TYPES[requested[0][1].dtype]
    vector = pa.list_(value, sizes.pop()) if len(sizes) == 1 else pa.list_(value)
    return vector if all(want.pool != "none" for _, want in requested) else pa.list_(vector)


def _settle(
    configs: Sequence[EmbeddingsConfig], checkpoint: Checkpoint, shape: Shape, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    requested = tuple(settled_vectors(configs, checkpoint, shape, options))
    mixed = [list(want.weights) for want in requested if want.weights]
    return {"vectors": requested}, {"mixture": mixed} if mixed else {}


def _check(configs: Sequence[EmbeddingsConfig]) -> None:
    if len({config.dtype for config in configs}) > 1:
        raise UsageError("embeddings of one output have one dtype: give the others an --output of their own")


def _row_keys(spec: TaskSpec) -> list[tuple[Any, ...]]:
    return [(want.layer, _pool_name(want), want.stride, want.l2_normalize) for want in spec.requested.vectors]


def _pool_name(want: VectorRequest) -> str:
    return f"{want.pool}/speech" if want.over_speech else want.pool


def _resolve_run(job: JobConfig, asked: Sequence[ModelRequest]) -> OutputRun | None:
    requested = [(each.shape.width_of(want.layer), want) for each in asked for want in each.spec.requested.vectors]
    return OutputRun(schema_of(values_type(requested))) if requested else None


def _rows(batch: Batch, run: OutputRun) -> pa.Table:
    """By segment, then by want."""
    rows: list[dict[str, Any]] = []
    vectors: list[NDArray[Any]] = []
    scales: list[NDArray[np.float32] | None] = []
    for each in batch.stored:
        for number, prediction in each.predictions.items():
            spec = batch.specs[number]
            for want, result in zip(spec.requested.vectors, prediction.readout.vectors, strict=True):
                named = {"layer": want.layer, "pool": _pool_name(want), "num_frames": result.num_frames}
                rows.append({**frame_row(each.segment, spec, want.layer, want.stride), **named})
                vectors.append(result.values_ND)
                scales.append(result.scale_N)
    columns = plain_columns(rows, run.schema, ("values", "scale"))
    columns["values"] = _values(vectors, run.schema.field("values").type)
    columns["scale"] = lists(scales, np.float32)
    return pa.table([columns[name] for name in run.schema.names], schema=run.schema)


def _bytes_per_second(asked: ModelRequest) -> float:
    total = 0.0
    for want in asked.spec.requested.vectors:
        rate = asked.spec.frame_rate(want.layer)
        width = asked.shape.width_of(want.layer) * (2 if want.pool == "mean+std" else 1)
        vector = width * BYTES_PER_VALUE[want.dtype] + (4 if want.dtype == "int8" else 0)
        total += vector * (rate / want.stride if want.pool == "none" else POOLED_HZ)
    return total


def _values(vectors: Sequence[NDArray[Any]], kind: pa.DataType) -> pa.Array:
    """The values column from one array values_ND a row."""
    is_rows = pa.types.is_list(kind) and (pa.types.is_nested(kind.value_type))
    vector = kind.value_type if is_rows else kind
    flat = pa.array(np.concatenate([v.reshape(-1) for v in vectors]) if vectors else [], vector.value_type)
    if pa.types.is_fixed_size_list(vector):
        columns: pa.Array = pa.FixedSizeListArray.from_arrays(flat, vector.list_size)
    else:
        sizes = [v.shape[1] for v in vectors for _ in range(len(v))]
        columns = pa.ListArray.from_arrays(pa.array(offsets(sizes)), flat)
    if not is_rows:
        return columns.cast(kind)
    return pa.ListArray.from_arrays(pa.array(offsets([len(v) for v in vectors])), columns).cast(kind)


def _read(rows: pa.Table, row: int, chosen: Mapping[str, Any]) -> NDArray[Any]:
    """values_FD or values_D of a row; float32 from int8 with its scale."""
    values = rows.column("values")[row].values
    is_frames = pa.types.is_nested(values.type)
    flat = np.array(values.flatten() if is_frames else values)  # a copy: torch wants arrays that may be written to
    result = flat.reshape(len(values), -1) if is_frames else flat
    scale = rows.column("scale")[row].values
    if scale is None:
        return result
    scale_N = np.asarray(scale, np.float32)
    scaled: NDArray[Any] = result.astype(np.float32) * (scale_N[:, None] if is_frames else scale_N)
    return scaled


EMBEDDINGS = Output(
    name="embeddings",
    documented={"embeddings": schema_of(pa.list_(pa.list_(pa.float16(), 768)))},
    config=EmbeddingsConfig,
    shorthand="layers",
    resolve=_settle,
    check=_check,
    row_keys=_row_keys,
    resolve_run=_resolve_run,
    rows=_rows,
    bytes_per_second=_bytes_per_second,
    reading=Reading(
        choose_by={"model": str, "layer": int, "pool": str},
        one_kind=("model", "layer", "pool"),
        columns=("values", "scale"),
        values=_read,
    ),
)
