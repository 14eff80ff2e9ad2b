"""What travels from the models to the writer: a row of plain values, and tables of frames that never become Python lists."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from audiomill import schema
from audiomill.tables.speaker_tables import MADE_LAST, SpeakersWant


@dataclass(frozen=True)
class Tables:
    """What a run writes. `has_text`: some model transcribes; `frames`: schemas of embeddings and codes by name; `speakers`: how
    they are told, None where nobody asked; `has_dnsmos`: networks judge how segments sound."""

    has_text: bool
    frames: Mapping[str, pa.Schema]
    speakers: SpeakersWant | None = None
    has_dnsmos: bool = False

    @property
    def schemas(self) -> dict[str, pa.Schema]:
        return {**schema.TABLES, **self.frames, **({} if self.speakers is None else MADE_LAST)}


class Result(NamedTuple):
    """What the models made of one piece. `row`: see `schema.RESULT`; `frames`: embeddings and codes by table name."""

    row: dict[str, Any]
    frames: dict[str, pa.Table]


def pack(result: Result) -> pa.Table:
    """One Arrow row: the plain columns, then one list of structs for each table of frames."""
    packed = pa.Table.from_pylist([result.row], schema=schema.RESULT)
    for name, table in result.frames.items():
        rows = table.combine_chunks()
        columns = [
            rows.column(field.name).chunk(0) if rows.num_rows else pa.array([], field.type) for field in rows.schema
        ]
        structs = pa.StructArray.from_arrays(columns, fields=list(rows.schema))
        packed = packed.append_column(name, pa.LargeListArray.from_arrays([0, rows.num_rows], structs))
    return packed


def unpack(packed: pa.Table) -> Result:
    """The result that `pack` made a row of."""
    (row,) = packed.select(schema.RESULT.names).to_pylist()
    frames = {}
    for name in packed.column_names[len(schema.RESULT) :]:
        structs = packed.column(name).combine_chunks()
        structs = structs.chunk(0) if isinstance(structs, pa.ChunkedArray) else structs
        frames[name] = pa.Table.from_struct_array(structs.flatten())
    return Result(row, frames)


def to_ipc(table: pa.Table, compression: str | None = None) -> bytes:
    """Bytes of an Arrow stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def stream_table(content: bytes) -> pa.Table:
    """The table of an Arrow stream."""
    return pa.ipc.open_stream(content).read_all()


def from_ipc(content: bytes) -> Result:
    return unpack(stream_table(content))
