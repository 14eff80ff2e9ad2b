"""The write stage: results of a part -> its files, then its ledger entry. Safe to run twice, by anyone."""

from __future__ import annotations

import datetime
import io
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.assemble import assemble
from pipeline.storage import ledger
from pipeline.storage.fs import Place
from pipeline.storage.parquet import part_name, read_table, write_table

FAILED_SUFFIX = ".failed.txt"
COUNTS = pa.schema(
    [
        ("part", pa.int32()),
        ("is_done", pa.bool_()),
        ("audio_s", pa.float64()),
        ("recordings", pa.int64()),
        ("rejections", pa.int64()),
    ]
)
"""What returns to the driver of a run: counts, never rows."""


def write_result(result: pa.Table, output: Place, digest: str, pieces_key: str) -> pa.Table:
    """Writes a part when all its pieces are there.

    Args:
        result: one row of `schema.RESULT`.
        output: the output folder.
        digest: of the configuration, for the ledger.
        pieces_key: names the way parts are cut into pieces, so that pieces cut otherwise are not mixed in.

    Returns:
        One row of `COUNTS`; `is_done` is False while pieces are missing.
    """
    before = time.perf_counter()
    part, piece, last = (result.column(name)[0].as_py() for name in ("part", "piece", "last"))
    if piece == 0 and last:
        rows: list[dict[str, Any]] = result.to_pylist()
    else:
        folder = output.join("_pieces", f"{part_name(part)}-{pieces_key}")
        name = f"{piece:05d}{'-last' if last else ''}.arrow"
        folder.join(name).write(_to_ipc(result))
        found = _all_pieces(folder)
        if found is None or ledger.is_done(output, part):
            return _counts(part, False, {})
        rows = found
    entry = write_part(output, part, assemble(rows), rows, digest, before)
    if not (piece == 0 and last):
        output.join("_pieces", f"{part_name(part)}-{pieces_key}").remove(recursive=True)
    return _counts(part, True, entry)


def save_result(result: pa.Table, folder: Place) -> pa.Table:
    """Keeps a result row under its part and piece number; `saved_results` reads it back. Returns counts."""
    part, piece = (result.column(name)[0].as_py() for name in ("part", "piece"))
    folder.join(f"{part:06d}-{piece:05d}.arrow").write(_to_ipc(result))
    return _counts(part, False, {})


def saved_results(folder: Place) -> dict[int, list[dict[str, Any]]]:
    """Part number -> its result rows in order, for the parts of which every piece was saved."""
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for name in folder.names():
        if name.endswith(".arrow") and not name.startswith("."):
            found[int(name[:6])] += _from_ipc(folder.join(name).read())
    return {part: rows for part, rows in found.items() if rows[-1]["last"] and len(rows) == rows[-1]["piece"] + 1}


def failure_place(output: Place, part: int) -> Place:
    """Where a worker leaves the traceback of a part that failed."""
    return output.join("_pieces", part_name(part) + FAILED_SUFFIX)


def write_part(
    output: Place,
    part: int,
    tables: dict[str, pa.Table],
    results: Sequence[dict[str, Any]],
    digest: str,
    started: float,
) -> dict[str, Any]:
    """One file per table, then the ledger entry, which is returned."""
    for name, table in tables.items():
        write_table(output.join(name, part_name(part) + ".parquet"), table, schema.TABLES[name])
    seconds: defaultdict[str, float] = defaultdict(float)
    for result in results:
        for stage, value in result["seconds"]:
            seconds[stage] += value
    seconds["write"] = time.perf_counter() - started
    entry = ledger_entry(part, tables, digest, dict(seconds))
    entry["began"] = min((result["began"] for result in results if result["began"]), default=None)
    ledger.commit(output, part, entry)
    return entry


def ledger_entry(part: int, tables: dict[str, pa.Table], digest: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Counts and times of a finished part."""
    recordings = tables["recordings"]
    sums = {
        name: float(sum(recordings.column(name).to_pylist()))
        for name in ("duration_s", "speech_s", "non_speech_s", "failed_s")
    }
    return {
        "part": part,
        "digest": digest,
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "num_recordings": recordings.num_rows,
        "num_segments": tables["segments"].num_rows,
        "num_rejections": tables["rejections"].num_rows,
        "rejections": dict(sorted(Counter(tables["rejections"].column("reason").to_pylist()).items())),
        **sums,
        "seconds": {stage: round(value, 6) for stage, value in sorted(seconds.items())},
    }


def replace_recordings(
    output: Place,
    part: int,
    order: Sequence[str],
    fresh: dict[str, pa.Table],
    results: Sequence[dict[str, Any]],
    digest: str,
) -> None:
    """Puts retried recordings into a finished part, in plan order, as if they had never failed.

    Args:
        output: the output folder.
        part: a finished part.
        order: ids of the part's recordings, in plan order.
        fresh: new tables of the retried recordings.
        results: their result rows, for the times.
        digest: of the configuration.
    """
    retried = {*fresh["recordings"].column("id").to_pylist(), *fresh["rejections"].column("id").to_pylist()}
    place = {recording_id: number for number, recording_id in enumerate(order)}
    merged: dict[str, pa.Table] = {}
    for name in schema.TABLES:
        key = "recording_id" if name == "segments" else "id"
        old = read_table(output.join(name, part_name(part) + ".parquet")).cast(schema.TABLES[name])
        rows = [row for row in old.to_pylist() if row[key] not in retried] + fresh[name].to_pylist()
        rows.sort(key=lambda row, key=key: place[row[key]])
        merged[name] = pa.Table.from_pylist(rows, schema=schema.TABLES[name])
    ledger.withdraw(output, part)
    write_part(output, part, merged, results, digest, time.perf_counter())


def _counts(part: int, is_done: bool, entry: dict[str, Any]) -> pa.Table:
    row = {
        "part": part,
        "is_done": is_done,
        "audio_s": entry.get("duration_s", 0.0),
        "recordings": entry.get("num_recordings", 0),
        "rejections": entry.get("num_rejections", 0),
    }
    return pa.Table.from_pylist([row], schema=COUNTS)


def _to_ipc(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _from_ipc(content: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.ipc.open_stream(content).read_all().to_pylist()
    return rows


def _all_pieces(folder: Place) -> list[dict[str, Any]] | None:
    """Result rows of a part in order, or None while some are missing."""
    names = [name for name in folder.names() if name.endswith(".arrow")]
    if not names or not names[-1].endswith("-last.arrow") or len(names) != int(names[-1][:5]) + 1:
        return None
    rows: list[dict[str, Any]] = []
    try:
        for name in names:
            rows += _from_ipc(folder.join(name).read())
    except FileNotFoundError:  # another writer saw the last piece too and has finished the part
        return None
    return rows
