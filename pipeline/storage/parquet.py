"""Part files: schema-checked, deterministic bytes, written in one step."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.fs import Place

PART_NAME = "part-{:06d}"


def part_name(part: int) -> str:
    """`17` -> `part-000017`: names derive from the part id, so a rerun overwrites with the same bytes."""
    return PART_NAME.format(part)


def to_bytes(table: pa.Table) -> bytes:
    """One Parquet file. The same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_statistics=True)
    return bytes(sink.getvalue().to_pybytes())


def write_table(place: Place, table: pa.Table, schema: pa.Schema) -> int:
    """Writes `table` cast to `schema` and returns the bytes written."""
    content = to_bytes(table.cast(schema))
    place.write(content)
    return len(content)


def read_table(place: Place) -> pa.Table:
    """Raises FileNotFoundError when absent."""
    return pq.read_table(pa.BufferReader(place.read()))
