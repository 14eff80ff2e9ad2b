"""Part files: schema-checked, deterministic bytes, written in one step."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from audiomill.config.renamed import RENAMED_COLUMNS, RENAMED_SELECTION_COLUMNS
from audiomill.errors import RunError
from audiomill.storage.fs import Place

PART_NAME = "part-{:06d}"
ROW_GROUP_BYTES = 16 << 20


def part_name(part: int) -> str:
    """`17` -> `part-000017`: names derive from the part id, so a rerun overwrites with the same bytes."""
    return PART_NAME.format(part)


def to_bytes(table: pa.Table) -> bytes:
    """One Parquet file. The same table gives the same bytes.

    A column `values` holds vectors: they do not compress, so they are stored as they are, in row groups of about
    `ROW_GROUP_BYTES`, so that a slice can be read without the rest.
    """
    sink = pa.BufferOutputStream()
    if "values" not in table.column_names:
        pq.write_table(table, sink, compression="zstd", write_statistics=True)
        return bytes(sink.getvalue().to_pybytes())
    others = [name for name in table.column_names if name != "values"]
    rows_a_group = max(1, ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes))
    pq.write_table(
        table,
        sink,
        row_group_size=rows_a_group,
        compression={**dict.fromkeys(others, "zstd"), "values": "none"},
        column_encoding=_encoding(table.schema.field("values").type),
        use_dictionary=[name for name in others if name != "scale"],
        write_statistics=others,
    )
    return bytes(sink.getvalue().to_pybytes())


def _encoding(kind: pa.DataType) -> dict[str, str] | None:
    """Parquet has no 8-bit integers: packed differences keep int8 values at about a byte each."""
    path = "values"
    while pa.types.is_nested(kind):
        path, kind = f"{path}.list.element", kind.value_type
    return {path: "DELTA_BINARY_PACKED"} if kind == pa.int8() else None


def write_table(place: Place, table: pa.Table, schema: pa.Schema) -> int:
    """Writes `table` cast to `schema` and returns the bytes written."""
    content = to_bytes(table.cast(schema))
    place.write(content)
    return len(content)


def in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table that an earlier version may have written, which knew fewer columns: those are null."""
    missing = [field for field in schema if field.name not in table.column_names and field.nullable]
    for field in missing:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return (table.select(schema.names) if missing else table).cast(schema)


def _new_names(place: Place, names: list[str]) -> dict[str, str]:
    """Old name -> new name of the columns that version 0.1 wrote."""
    table, file = place.url.split("/")[-2:]
    renamed = RENAMED_COLUMNS.get(table, RENAMED_SELECTION_COLUMNS if file == "selected.parquet" else {})
    return {old: new for old, new in renamed.items() if old in names and new not in names}


def read_table(place: Place, columns: list[str] | None = None) -> pa.Table:
    """Raises FileNotFoundError when absent.

    In this thread alone, and not by `pyarrow.parquet.read_table`: that scans with threads of its own, which abort a
    process that ends right after they were started (pyarrow 26); callers read many files side by side anyway.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(place.read()))
        new_names = _new_names(place, file.schema_arrow.names)
        old_names = {new: old for old, new in new_names.items()}
        wanted = columns and [old_names.get(name, name) for name in columns]
        table = file.read(columns=wanted, use_threads=False)
        return table.rename_columns([new_names.get(name, name) for name in table.column_names])
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise RunError(
            f"{place.url}: expected a Parquet file, got: {error}; run the same command again, which makes the part anew"
        ) from error
