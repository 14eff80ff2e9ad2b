"""Results of all pieces of a part -> its tables, every second accounted for."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from audiomill import schema
from audiomill.audio.clock import seconds_from_samples
from audiomill.config.jobs import JobConfig
from audiomill.tables.output import ModelRequest, OutputRun, in_segment_order
from audiomill.tables.outputs import OUTPUTS
from audiomill.tables.rows import in_time_order, joined_text, spoken_language


@dataclass(frozen=True)
class Tables:
    """What a run writes. `has_text`: some model transcribes; `outputs`: by the name of the output; `schemas`: of all tables."""

    has_text: bool
    outputs: Mapping[str, OutputRun]
    schemas: Mapping[str, pa.Schema]


def resolve_tables(config: JobConfig, asked: Sequence[ModelRequest]) -> Tables:
    """What a run of these models writes."""
    has_text = any(each.spec.requested.has_text for each in asked)
    outputs, schemas = dict[str, OutputRun](), dict(schema.TABLES)
    for output in OUTPUTS:
        run = output.resolve_run(config, asked)
        if run is not None:
            outputs[output.name] = run
            schemas |= output.part_schemas(run)
    return Tables(has_text, outputs, schemas)


class Result(NamedTuple):
    """What the models made of one piece. `row`: see `schema.RESULT`; `tables`: rows by the name of the output."""

    row: dict[str, Any]
    tables: dict[str, pa.Table]


def pack(result: Result) -> pa.Table:
    """One Arrow row: the plain columns, then one list of structs for each output."""
    packed = pa.Table.from_pylist([result.row], schema=schema.RESULT)
    for name, table in result.tables.items():
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
    tables = {}
    for name in packed.column_names[len(schema.RESULT) :]:
        structs = packed.column(name).combine_chunks()
        structs = structs.chunk(0) if isinstance(structs, pa.ChunkedArray) else structs
        tables[name] = pa.Table.from_struct_array(structs.flatten())
    return Result(row, tables)


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


ENVELOPE = ("envelope", "envelope_s")


def assemble(results: Sequence[Result], wanted: Tables) -> dict[str, pa.Table]:
    """The tables of one part from the results of its pieces, in order.

    Args:
        results: of all pieces.
        wanted: what the run writes.

    Returns:
        `recordings`, `segments` and `rejections`: every recording is in exactly one of the first and the last.
        Then the tables of the outputs, in the order of the segments.
    """
    tables = _accounts([result.row for result in results], wanted.has_text)
    for output in OUTPUTS:
        if output.name not in wanted.outputs:
            continue
        run = wanted.outputs[output.name]
        pieces = [result.tables[output.name].cast(run.schema) for result in results if output.name in result.tables]
        rows = pa.concat_tables(pieces) if pieces else run.schema.empty_table()
        if output.finish is None:
            tables[output.name] = in_segment_order(rows, tables)
        else:
            tables = output.finish(tables, rows, run)
    return tables


def _accounts(results: Sequence[dict[str, Any]], has_text: bool) -> dict[str, pa.Table]:
    segments_of: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    lost: defaultdict[str, int] = defaultdict(int)
    failures: dict[str, str] = {}
    for result in results:
        failures = {**dict(result["failures"]), **failures}
        for segment in result["segments"]:
            segments_of[segment["recording_id"]].append(segment)
        for recording_id, samples in result["lost"]:
            lost[recording_id] += samples
    recordings, kept_value, rejections = [], [], [r for result in results for r in result["rejections"]]
    for ending in (ending for result in results for ending in result["endings"]):
        segments = in_time_order(segments_of[ending["id"]])
        if lost[ending["id"]] and not segments:
            seconds = seconds_from_samples(lost[ending["id"]])
            detail = f"expected an answer, got {failures.get(ending['id'], 'an error of the model')} on {seconds:.3f} s"
            named = {name: ending[name] for name in ("id", "source", "member")}
            rejections.append({**named, "stage": "infer", "reason": "model_failed", "detail": detail})
            continue
        recordings.append(_recording_row(ending, segments, lost[ending["id"]], has_text))
        kept_value += segments
    rows = {"recordings": recordings, "segments": kept_value, "rejections": rejections}
    return {name: pa.Table.from_pylist(rows[name], schema=schema.TABLES[name]) for name in rows}


def _recording_row(ending: dict[str, Any], segments: list[dict[str, Any]], lost: int, has_text: bool) -> dict[str, Any]:
    speech = max(0, ending["speech_samples"] - lost)
    failed = ending["failed_samples"] + (ending["speech_samples"] - speech)
    problems = [ending["error"]] if ending["error"] else []
    problems += [f"the model failed on {seconds_from_samples(lost):.3f} s"] if lost else []
    return {
        **{
            name: ending[name]
            for name in (
                "id",
                "source",
                "member",
                "sample_rate",
                "num_channels",
                "track",
                "notes",
                "reference",
                "metadata",
                "checksum",
                *ENVELOPE,
            )
        },
        "span_start_s": seconds_from_samples(ending["origin"]),
        "duration_s": seconds_from_samples(ending["num_samples"]),
        "text": joined_text(segments) if has_text else None,
        "language": spoken_language(segments),
        "num_segments": len(segments),
        "speech_s": seconds_from_samples(speech),
        "non_speech_s": seconds_from_samples(ending["num_samples"] - speech - failed),
        "failed_s": seconds_from_samples(failed),
        "error": "; ".join(problems) or None,
    }
