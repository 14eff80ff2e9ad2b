"""What the tables of frames share: names, clocks and columns. Arrow buffers, no Python lists.

N vectors, D width, K codebooks, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audiomill.audio.clock import seconds_from_samples
from audiomill.models.task import TaskSpec
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
