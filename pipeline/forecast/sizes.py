"""Bytes of the output tables, extrapolated from a sample column by column: times and scores grow with the audio, words
repeat themselves and grow more slowly, and a file costs something even when it is empty."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage.parquet import to_bytes

SHARES = (4, 2, 1)
"""The sample is written whole, in halves and in quarters."""
MIN_GROWTH = 0.3
"""A column never stops growing: a power of the audio below this is noise of a small sample."""

Leaves = dict[str, float]


def leaf_bytes(table: pa.Table) -> Leaves:
    """Compressed bytes of every leaf column of the file that the table makes; `rest`: footer and the like."""
    content = to_bytes(table)
    metadata = pq.ParquetFile(pa.BufferReader(content)).metadata
    found: defaultdict[str, float] = defaultdict(float)
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            found[chunk.path_in_schema] += chunk.total_compressed_size
    found["rest"] = len(content) - sum(found.values())
    return dict(found)


def split(table: pa.Table, key: str, ids: Sequence[str], pieces: int) -> list[pa.Table]:
    """The rows of so many shares of the recordings."""
    return [
        table.filter(pc.is_in(table.column(key), value_set=pa.array(list(ids[number::pieces]), pa.string())))
        for number in range(pieces)
    ]


def growth(table: pa.Table, key: str, ids: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """For each leaf: bytes of an empty file, bytes of the sample above that, and the power with which they grow."""
    empty = leaf_bytes(table.slice(0, 0))
    shares = [pieces for pieces in SHARES if pieces <= max(1, len(ids))]
    means: list[Leaves] = []
    for pieces in shares:
        sizes = [leaf_bytes(each) for each in split(table, key, ids, pieces)]
        means.append({name: sum(size.get(name, 0.0) for size in sizes) / pieces for name in empty | sizes[0]})
    found = {}
    for name in means[-1]:
        base = empty.get(name, 0.0)
        above = [max(0.0, mean[name] - base) for mean in means]
        found[name] = (base, above[-1], _power(shares, above))
    return found


def _power(shares: Sequence[int], above: Sequence[float]) -> float:
    """Slope through the sizes on logarithmic scales."""
    points = [(-math.log(pieces), math.log(size)) for pieces, size in zip(shares, above, strict=True) if size > 0]
    if len(points) < 2:
        return 1.0
    x, y = (sum(each[at] for each in points) / len(points) for at in (0, 1))
    spread = sum((each[0] - x) ** 2 for each in points)
    slope = sum((each[0] - x) * (each[1] - y) for each in points) / spread
    return min(1.0, max(MIN_GROWTH, slope))


def bytes_of_file(found: Mapping[str, tuple[float, float, float]], times: float) -> float:
    """One file that holds so many times the sample."""
    return (
        sum(base + above * times**power for base, above, power in found.values())
        if times > 0
        else sum(base for base, _, _ in found.values())
    )
