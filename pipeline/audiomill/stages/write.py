"""The write stage: results of a part -> its files, then its ledger entry. Idempotent: safe to run twice, by anyone."""

from __future__ import annotations

import datetime
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from audiomill.errors import RunError
from audiomill.models.batch import Difference, largest
from audiomill.stages.failures import progress_place
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import in_schema, part_name, read_table, write_table
from audiomill.tables.assemble import Result, Tables, assemble, from_ipc, to_ipc, unpack
from audiomill.tables.forgotten import forgotten_of, without_forgotten
from audiomill.tables.output import in_order_of
from audiomill.tables.outputs import OUTPUTS

_COUNTS = pa.schema(
    [
        ("part", pa.int32()),
        ("is_done", pa.bool_()),
        ("entry", pa.string()),
        ("rejected", pa.string()),
    ]
)
"""What returns to the driver of a run: counts, never rows. `entry`: of the ledger, as JSON; `rejected`: the first
`MAX_NAMED` rejections without their details, for logs."""
MAX_NAMED = 50
_SPEAKERS = "speakers"

_SPECIAL = re.compile(r"<(unk|pad|s|/s|mask)>|\[(UNK|PAD|CLS|SEP|MASK)\]")
"""Tokens of CTC vocabularies that stand for no letter."""


def write_result(result: pa.Table, output: Place, wanted: Tables, digest: str, pieces_key: str) -> pa.Table:
    """Writes a part when all its pieces are there.

    Args:
        result: one packed row, see `audiomill.tables.assemble`.
        output: the output folder.
        wanted: the tables to write.
        digest: of the configuration, for the ledger.
        pieces_key: names the way parts are cut into pieces, so that pieces cut otherwise are not mixed in.

    Returns:
        One row of `_COUNTS`; `is_done` is False while pieces are missing.
    """
    before = time.perf_counter()
    part, piece, last = (result.column(name)[0].as_py() for name in ("part", "piece", "last"))
    if piece == 0 and last:
        results = [unpack(result)]
    else:
        folder = output.join("_pieces", f"{part_name(part)}-{pieces_key}")
        name = f"{piece:05d}{'-last' if last else ''}.arrow"
        try:
            folder.join(name).write(to_ipc(result))
            all_pieces = _all_pieces(folder)
        except FileNotFoundError:  # another run of the same output removes the pieces of a part that it has written
            all_pieces = None
            if not ledger.is_done(output, part):
                raise
        if all_pieces is None or ledger.is_done(output, part):
            return _counts(part, {}, [])
        results = all_pieces
    tables = assemble(results, wanted)
    planned = [name for each in results for name in each.row["planned"]]
    entry = write_part(PartTarget(output, part, planned), tables, results, wanted, digest, before)
    for each in results:
        progress_place(output, part, each.row["piece"]).remove()
    if not (piece == 0 and last):
        output.join("_pieces", f"{part_name(part)}-{pieces_key}").remove(recursive=True)
    return _counts(part, entry, tables["rejections"].slice(0, MAX_NAMED).to_pylist())


def save_result(result: pa.Table, folder: Place) -> pa.Table:
    """Keeps a result row under its part and piece number; `saved_results` reads it back. Returns counts."""
    part, piece = (result.column(name)[0].as_py() for name in ("part", "piece"))
    folder.join(f"{part:06d}-{piece:05d}.arrow").write(to_ipc(result))
    return _counts(part, {}, [])


def saved_results(folder: Place) -> dict[int, list[Result]]:
    """Part number -> its results in order, for the parts of which every piece was saved."""
    result: defaultdict[int, list[Result]] = defaultdict(list)
    for name in folder.names():
        if name.endswith(".arrow") and not name.startswith("."):
            result[int(name[:6])].append(from_ipc(folder.join(name).read()))
    return whole_parts(result)


def whole_parts(results: Mapping[int, Sequence[Result]]) -> dict[int, list[Result]]:
    """The parts of which every piece is there, their results in order."""
    in_order = {part: sorted(several, key=lambda result: int(result.row["piece"])) for part, several in results.items()}
    return {
        part: several
        for part, several in in_order.items()
        if several[-1].row["last"] and len(several) == several[-1].row["piece"] + 1
    }


class PartTarget(NamedTuple):
    """Where a part goes. `planned`: ids of its recordings."""

    output: Place
    part: int
    planned: Sequence[str]


def write_part(
    target: PartTarget,
    tables: dict[str, pa.Table],
    results: Sequence[Result],
    wanted: Tables,
    digest: str,
    started: float,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One file per table, then the ledger entry, which is returned.

    Args:
        target: where it goes.
        tables: by name.
        results: they were made of, for the times.
        wanted: the tables of the run.
        digest: of the configuration.
        started: on the performance counter.
        earlier: entry of the same part, whose times are added.

    Raises:
        RunError: a planned recording is in neither `recordings` nor `rejections`, or one is there twice.
    """
    output, part, planned = target
    check_accounted(part, planned, tables)
    if _SPEAKERS in tables:
        tables = without_forgotten(tables, forgotten_of(output))
    num_bytes = {
        name: write_table(output.join(name, part_name(part) + ".parquet"), tables[name], expected)
        for name, expected in wanted.schemas.items()
    }
    seconds: defaultdict[str, float] = defaultdict(float)
    for result in results:
        for stage, value in result.row["seconds"]:
            seconds[stage] += value
    seconds["write"] = time.perf_counter() - started
    for stage, value in (earlier or {"seconds": {}})["seconds"].items():
        seconds[stage] += value
    entry = ledger_entry(part, tables, digest, dict(seconds))
    entry["bytes"] = num_bytes
    starts = [result.row["began"] for result in results if result.row["began"]]
    starts += [earlier["began"]] if earlier and earlier["began"] else []
    entry["began"] = min(starts, default=None)
    outcome = [Difference(**json.loads(result.row["verification"])) for result in results if result.row["verification"]]
    entry["verification"] = largest(outcome)._asdict() if outcome else None
    _commit(output, part, entry)
    return entry


def _commit(output: Place, part: int, entry: dict[str, Any]) -> None:
    """The last file of a part."""
    ledger.commit(output, part, entry)


def check_accounted(part: int, planned: Sequence[str], tables: Mapping[str, pa.Table]) -> None:
    """Law 1 for one part: raises RunFailed unless every planned recording is there once, and nothing else is."""
    counter = Counter(id for name in ("recordings", "rejections") for id in tables[name].column("id").to_pylist())
    missing, foreign = sorted(set(planned) - counter.keys()), sorted(counter.keys() - set(planned))
    twice = sorted(id for id, count in counter.items() if count > 1)
    for what, ids in (("missing", missing), ("there twice", twice), ("not planned", foreign)):
        if ids:
            raise RunError(
                f"part {part}: of {len(planned)} planned recordings {len(ids)} are {what}, the first is {ids[0]}; "
                "nothing of this part was written. Run again, and report it if it stays"
            )


def declare_complete(output: Place, num_recordings: int, tables: Sequence[str]) -> None:
    """The claim that every planned recording is accounted for: the last file of a run."""
    content = {"num_recordings": num_recordings, "tables": sorted(tables)}
    output.join("_SUCCESS").write(json.dumps(content).encode())


def ledger_entry(part: int, tables: dict[str, pa.Table], digest: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Counts and times of a finished part."""
    recordings = tables["recordings"]
    counted = [output.counted(tables[output.name]) for output in OUTPUTS if output.name in tables]
    sums = {
        name: float(sum(recordings.column(name).to_pylist()))
        for name in ("duration_s", "speech_s", "non_speech_s", "failed_s")
    }
    return {
        "part": part,
        "digest": digest,
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
        "num_recordings": recordings.num_rows,
        "num_segments": tables["segments"].num_rows,
        "num_rejections": tables["rejections"].num_rows,
        "rejections": dict(sorted(_counted(tables["rejections"], "reason").items())),
        **sums,
        "languages": _language_seconds(recordings),
        "num_special": sum(bool(_SPECIAL.search(text or "")) for text in tables["segments"].column("text").to_pylist()),
        "num_doubtful": sum(
            _is_doubtful(failed_checks) for failed_checks in tables["segments"].column("failed_checks").to_pylist()
        ),
        "fallback_levels": {
            str(fallback_level): count
            for fallback_level, count in sorted(_counted(tables["segments"], "fallback_level").items())
        },
        **{name: value for each in counted for name, value in each.items()},
        "seconds": {stage: round(value, 6) for stage, value in sorted(seconds.items())},
    }


def _is_doubtful(failed_checks: list[str] | None) -> bool:
    """Whether a segment's text fails a check and is kept."""
    return bool(failed_checks) and failed_checks != ["silence"]


def _counted(table: pa.Table, column: str) -> Counter[Any]:
    return Counter(value for value in table.column(column).to_pylist() if value is not None)


def _language_seconds(recordings: pa.Table) -> dict[str, float]:
    """Seconds of speech by language; without one where the model has none."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for row in recordings.select(["language", "speech_s"]).to_pylist():
        if row["language"] is not None:
            seconds[row["language"]] += row["speech_s"]
    return {language: round(value, 6) for language, value in sorted(seconds.items())}


def rewrite_part(output: Place, part: int, tables: Mapping[str, pa.Table]) -> None:
    """Puts changed tables of the same rows into a finished part; what a kill leaves half changed is made anew."""
    entry = next(ledger.entries(output, [part]))
    complete = output.join("_SUCCESS")
    claim = complete.read() if complete.exists() else None
    ledger.withdraw(output, part)
    sizes = {
        name: write_table(output.join(name, part_name(part) + ".parquet"), table, table.schema)
        for name, table in tables.items()
    }
    _commit(output, part, {**entry, "bytes": {**entry["bytes"], **sizes}})
    if claim is not None:
        complete.write(claim)


def replace_recordings(
    output: Place,
    part: int,
    order: Sequence[str],
    fresh: dict[str, pa.Table],
    results: Sequence[Result],
    wanted: Tables,
    digest: str,
) -> dict[str, Any]:
    """Puts retried recordings into a finished part, in plan order, as if they had never failed; the entry keeps the times
    of both runs.

    Args:
        output: the output folder.
        part: a finished part.
        order: ids of the part's recordings, in plan order.
        fresh: new tables of the retried recordings.
        results: their results, for the times.
        wanted: the tables of the run.
        digest: of the configuration.
    """
    retried = pa.array([*fresh["recordings"].column("id").to_pylist(), *fresh["rejections"].column("id").to_pylist()])
    merged: dict[str, pa.Table] = {}
    for name, expected in wanted.schemas.items():
        key = "id" if name in ("recordings", "rejections") else "recording_id"
        old = in_schema(read_table(output.join(name, part_name(part) + ".parquet")), expected)
        others = old.filter(pc.invert(pc.is_in(old.column(key), value_set=retried)))
        merged[name] = in_order_of(pa.concat_tables([others, fresh[name]]), key, pa.array(order))
    before = next(ledger.entries(output, [part]))
    ledger.withdraw(output, part)
    return write_part(PartTarget(output, part, order), merged, results, wanted, digest, time.perf_counter(), before)


def _counts(part: int, entry: dict[str, Any], rejected: list[dict[str, Any]]) -> pa.Table:
    """One row of `_COUNTS`; without an entry the part is not done yet."""
    named = [{name: row[name] for name in ("id", "stage", "reason")} for row in rejected]
    plain = {name: value for name, value in entry.items() if name != "codes_usage"}
    row = {"part": part, "is_done": bool(entry), "entry": json.dumps(plain), "rejected": json.dumps(named)}
    return pa.Table.from_pylist([row], schema=_COUNTS)


def _all_pieces(folder: Place) -> list[Result] | None:
    """Results of a part in order, or None while some are missing."""
    names = [name for name in folder.names() if name.endswith(".arrow")]
    if not names or not names[-1].endswith("-last.arrow") or len(names) != int(names[-1][:5]) + 1:
        return None
    try:
        return [from_ipc(folder.join(name).read()) for name in names]
    except FileNotFoundError:  # another writer saw the last piece too and has finished the part
        return None
