"""A uniform sample of all frames of a run that does not depend on order, batches, engines or restarts.

Every frame gets a random priority from its segment's name; the frames with the lowest ones are the sample. N frames,
D width.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.tables.assemble import unpack


def sample_of(result: pa.Table, seed: int, below: float) -> pa.Table:
    """The frames of one packed result whose priority is below `below`.

    Returns:
        One row: part, audio_s, is_last, rejections (JSON, counts by reason), priorities, values (float32, end to end).
    """
    row, frames = unpack(result)
    priorities, values = [np.zeros(0)], [np.zeros(0, np.float32)]
    table = frames["embeddings"]
    for number, name in enumerate(table.column("segment_id").to_pylist()):
        vectors_ND = _vectors(table, number)
        key = int.from_bytes(hashlib.sha256(f"{seed}-{name}".encode()).digest()[:8], "little")
        priority_N = np.random.default_rng(key).random(len(vectors_ND))
        is_drawn = priority_N < below
        priorities.append(priority_N[is_drawn])
        values.append(vectors_ND[is_drawn].reshape(-1))
    return pa.table(
        {
            "part": pa.array([row["part"]], pa.int32()),
            "is_last": [row["last"]],
            "audio_s": [sum(ending["num_samples"] for ending in row["endings"]) / MODEL_SAMPLE_RATE],
            "rejections": [json.dumps(Counter(r["reason"] for r in row["rejections"]))],
            "priorities": pa.LargeListArray.from_arrays([0, sum(map(len, priorities))], np.concatenate(priorities)),
            "values": pa.LargeListArray.from_arrays([0, sum(map(len, values))], np.concatenate(values)),
        }
    )


def _vectors(table: pa.Table, number: int) -> NDArray[np.float32]:
    """values_ND of one row."""
    vectors = table.column("values")[number].values
    return np.asarray(vectors.flatten(), np.float32).reshape(len(vectors), -1)


class Reservoir:
    """Keeps the `size` frames of lowest priority of all that it is given, in bounded memory.

    Args:
        size: frames to keep.
        width: D.
    """

    def __init__(self, size: int, width: int) -> None:
        self._size, self._width = size, width
        self._priorities: list[NDArray[np.float64]] = []
        self._values: list[NDArray[np.float32]] = []
        self._count = self.num_seen = 0

    def add(self, sample: pa.Table) -> None:
        """Takes one row of `sample_of`."""
        priority_N = sample.column("priorities").combine_chunks().flatten().to_numpy()
        values = sample.column("values").combine_chunks().flatten().to_numpy()
        self._priorities.append(priority_N)
        self._values.append(values.reshape(-1, self._width))
        self._count += len(priority_N)
        if self._count > 2 * self._size:
            self._prune()

    def frames(self) -> NDArray[np.float32]:
        """The sample, in the order of its priorities."""
        self._prune()
        return self._values[0]

    def _prune(self) -> None:
        priority_N = np.concatenate(self._priorities or [np.zeros(0)])
        values_ND = np.concatenate(self._values or [np.zeros((0, self._width), np.float32)])
        order = np.argsort(priority_N, kind="stable")[: self._size]
        self._priorities, self._values, self._count = [priority_N[order]], [values_ND[order]], len(order)
