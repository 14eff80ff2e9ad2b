"""Resume: what is done, one JSON file a part, written after its tables. A part without one is run (again).

OUTPUT/run.json                 configuration that guards the folder, written once
OUTPUT/plan.parquet, plan-0001.parquet, ...   the plan and its later additions, each written once
OUTPUT/ledger/part-000017.json  counts and seconds of a finished part
OUTPUT/ledger/run-....json      the summary of one run
OUTPUT/_SUCCESS                 every planned part is in the ledger
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from audiomill import schema
from audiomill.config.fields import differing
from audiomill.config.renamed import RENAMED_LEDGER_KEYS, with_new_names
from audiomill.errors import ConfigMismatchError, RunError, UsageError
from audiomill.storage.fs import Place
from audiomill.storage.part_files import in_schema, part_name, read_table, to_bytes

_AT_ONCE = 16
"""Files that are fetched side by side."""
PLAN_FILE = re.compile(r"plan(-\d{4})?\.parquet")
KNOWN_NAMES = re.compile(
    r"run\.json|_SUCCESS|report|report\.html|forecast\.(json|html)|[^/]*\.prom|ledger|_pieces|export|resynthesis|voices|scores\..*|"
    + PLAN_FILE.pattern
)


def guard(
    output: Place, fields: dict[str, Any], record: dict[str, Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Claims the output for a configuration, or checks that it is the one it was made with. Of runs that come at once one
    claims it.

    Args:
        output: the output folder.
        fields: everything that changes results, by flag name.
        record: what run.json holds beside that (versions, fingerprint).
        defaults: of options, so that an output of a version without one of them goes on.

    Returns:
        run.json as it stands, of this run or of the one that claimed the output first.

    Raises:
        ConfigMismatchError: another configuration made this output; the message names the differences.
    """
    place = output.join("run.json")
    content = {"results": fields, **record}
    if place.create(json.dumps(content, indent=2, sort_keys=True).encode()):
        return content
    claimed: dict[str, Any] = json.loads(place.read())
    _check_version(output, str(claimed.get("audiomill")), str(record.get("audiomill")))
    before = claimed["results"]

    def shown(values: dict[str, Any], origin: dict[str, Any], name: str) -> str:
        value = values.get(name)
        if isinstance(value, dict):
            one, two = before.get(name) or {}, fields.get(name) or {}
            return str({each: of for each, of in value.items() if one.get(each) != two.get(each)})
        return f"{origin.get('model_name')} (weights {value})" if name == "model" else repr(value)

    others = [
        f"--{name} was {shown(before, claimed, name)}, now {shown(fields, record, name)}"
        for name in differing(before, fields, defaults or {})
    ]
    if others:
        raise ConfigMismatchError(
            f"{output.url} was made with other settings: {'; '.join(others)}. "
            "Use the old settings, another --output, or --overwrite to start anew"
        )
    return claimed


def _check_version(output: Place, made_by: str, now: str) -> None:
    """Raises ConfigMismatchError for an output of a version whose tables had other columns."""
    if made_by.startswith("0.1.") and not now.startswith("0.1."):
        raise ConfigMismatchError(
            f"{output.url} was made by audiomill {made_by}: {now} reads, exports and searches it, and does not go on with it, "
            "because columns have other names now. Use another --output, or --overwrite to start anew"
        )


def claim_of(output: Place) -> dict[str, Any]:
    """run.json of an output: `results` that guard it, and what else was settled for it; empty if nobody claimed it."""
    place = output.join("run.json")
    return dict(json.loads(place.read())) if place.exists() else {}


def clear_output(output: Place, tables: Sequence[str]) -> None:
    """Deletes what a run writes, nothing else.

    Args:
        output: the output folder.
        tables: names that their folders may have.

    Raises:
        UsageError: the folder holds files that no run wrote.
    """
    names = [name for name in output.names() if not name.startswith(".")]
    foreign = [name for name in names if not KNOWN_NAMES.fullmatch(name) and name not in tables]
    if foreign:
        raise UsageError(
            f"--overwrite: {output.url} holds {foreign[0]!r}, which audiomill did not write; choose another --output"
        )
    for name in sorted(names, key=lambda name: name != "_SUCCESS"):  # the claim to be complete goes first
        # A forecast was made before the run, and is compared with it afterwards; voices keep their ids, and stay forgotten.
        if not name.startswith("forecast.") and name != "voices":
            output.join(name).remove(recursive=True)


def plan_files(output: Place) -> list[str]:
    """Names of the plan and its additions, in order."""
    return sorted((name for name in output.names() if PLAN_FILE.fullmatch(name)), key=lambda name: (len(name), name))


def load_plan(output: Place, names: list[str] | None = None) -> pa.Table | None:
    """The plan with all additions (or those in `names`), or None if there is none yet."""
    places = [output.join(name) for name in (plan_files(output) if names is None else names)]
    return pa.concat_tables([read_table(place).cast(schema.PLAN) for place in places]) if places else None


def split_by_part(plan: pa.Table) -> dict[int, pa.Table]:
    """Part number -> its rows, without copying; parts are contiguous in the plan."""
    numbers = plan.column("part").to_numpy()
    results: dict[int, pa.Table] = {}
    start = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[start]:
            results[int(numbers[start])] = plan.slice(start, at - start)
            start = at
    return results


def add_to_plan(output: Place, addition: pa.Table, num_before: int) -> bool:
    """Writes the plan file that follows the `num_before` ones which the addition was made against.

    Returns:
        False if another run added one first: then read again and plan again.
    """
    name = "plan.parquet" if num_before == 0 else f"plan-{num_before:04d}.parquet"
    return output.join(name).create(to_bytes(addition.cast(schema.PLAN)))


def rewrite_plan(output: Place, names: Sequence[str], plan: pa.Table) -> None:
    """Writes the plan files `names`, which hold the plan's first rows, where they say something else."""
    start = 0
    for name in names:
        place = output.join(name)
        before = place.read()
        count = pq.read_metadata(io.BytesIO(before)).num_rows
        content = to_bytes(plan.slice(start, count).cast(schema.PLAN))
        if content != before:
            place.write(content)
        start += count


def done_parts(output: Place) -> set[int]:
    """Part numbers in the ledger: one listing."""
    result = (re.fullmatch(r"part-(\d{6,})\.json", name) for name in output.join("ledger").names())
    return {int(match.group(1)) for match in result if match}


def missing_array_tasks(output: Place, count: int) -> list[int]:
    """Numbers of the shards, of `count`, whose parts (`part % count`) are not all in the ledger; all without a plan; the
    first one where all is done but nobody has said so.

    Raises:
        UsageError: `count` is not positive.
    """
    if count < 1:
        raise UsageError(f"--missing-array-tasks {count}: expected the N of --array-task I/N")
    plan = load_plan(output)
    if plan is None:
        return list(range(count))
    results = sorted({part % count for part in set(plan.column("part").to_pylist()) - done_parts(output)})
    return results or ([] if output.join("_SUCCESS").exists() else [0])


def is_done(output: Place, part: int) -> bool:
    return output.join("ledger", part_name(part) + ".json").exists()


def commit(output: Place, part: int, entry: dict[str, Any]) -> None:
    """Marks a part as finished. Its tables must be in place."""
    output.join("ledger", part_name(part) + ".json").write(json.dumps(entry, indent=1, sort_keys=True).encode())


def withdraw(output: Place, part: int) -> None:
    """Takes a part out of the ledger before its tables are rewritten, so that a kill in between redoes it."""
    output.join("_SUCCESS").remove()
    output.join("ledger", part_name(part) + ".json").remove()


def entries(output: Place, parts: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """The ledger entries of `parts`, or all in part order, fetched in parallel."""
    for _, place, content in _contents(output, sorted(done_parts(output)) if parts is None else parts):
        yield _entry(place, content)


class Totals(NamedTuple):
    """Sums over ledger entries. `numbers`: of everything named num_ or in seconds; `seconds`: by stage; `num_bytes`: by table;
    `rejections`: by reason; `fallback_levels`: segments by level."""

    numbers: Mapping[str, float]
    seconds: Counter[str]
    num_bytes: Counter[str]
    rejections: Counter[str]
    fallback_levels: Counter[str]


def totals(entries: Iterable[Mapping[str, Any]]) -> Totals:
    """Sums over the entries of finished parts: the one place where they are added up."""
    sums = Totals(defaultdict(float), Counter(), Counter(), Counter(), Counter())
    numbers: defaultdict[str, float] = defaultdict(float)
    for entry in entries:
        for name, value in entry.items():
            if name.startswith("num_") or name.endswith("_s"):
                numbers[name] += value
        sums.seconds.update(entry.get("seconds", {}))
        sums.num_bytes.update(entry.get("bytes", {}))
        sums.rejections.update(entry.get("rejections", {}))
        sums.fallback_levels.update(entry.get("fallback_levels", {}))
    return sums._replace(numbers=numbers)


def _contents(output: Place, parts: Sequence[int]) -> Iterator[tuple[int, Place, bytes]]:
    places = [output.join("ledger", part_name(part) + ".json") for part in parts]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from zip(parts, places, pool.map(Place.read, places), strict=True)


def _entry(place: Place, content: bytes) -> dict[str, Any]:
    try:
        return with_new_names(json.loads(content), RENAMED_LEDGER_KEYS)
    except ValueError as error:
        raise RunError(
            f"{place.url}: expected JSON, got: {error}; run the same command again, which makes the part anew"
        ) from error


def damaged(output: Place) -> dict[int, str]:
    """Finished parts whose files are not as they were written, with what is wrong. One listing a table.

    Files may have been cut short by a full disk or a broken copy.
    """
    results: dict[int, str] = {}
    sizes: dict[str, dict[str, int | None]] = {}
    for part, place, content in _contents(output, sorted(done_parts(output))):
        try:
            entry = _entry(place, content)
        except RunError as error:
            results[part] = str(error).split(";")[0]
            continue
        for table, written in entry["bytes"].items():
            if table not in sizes:
                sizes[table] = output.join(table).sizes()
            name = part_name(part) + ".parquet"
            there = sizes[table].get(name, -1)
            if there is not None and there != written:
                what = "it is gone" if there < 0 else f"got {there}"
                results[part] = f"{output.join(table, name).url}: expected {written} bytes, {what}"
    return results


def each_part(
    output: Place, table: str, columns: list[str] | None = None, parts: Sequence[int] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """Part numbers and finished rows of one output table, part after part, a few read ahead: a corpus may have more rows
    than fit the memory.

    Args:
        output: the output folder.
        table: a folder of part files: a key of `schema.TABLES`, embeddings or codes.
        columns: projection, all by default.
        parts: which ones, all by default.
    """
    expected = _schema_of(table, columns)

    def load(part: int) -> pa.Table:
        result = read_table(output.join(table, part_name(part) + ".parquet"), columns)
        return result if expected is None else in_schema(result, expected)

    waiting: deque[tuple[int, Future[pa.Table]]] = deque()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for part in sorted(done_parts(output)) if parts is None else parts:
            waiting.append((part, pool.submit(load, part)))
            if len(waiting) > _AT_ONCE:
                number, rows = waiting.popleft()
                yield number, rows.result()
        for number, rows in waiting:
            yield number, rows.result()


def tables(output: Place, table: str, columns: list[str] | None = None, parts: Sequence[int] | None = None) -> pa.Table:
    """All that `each_part` gives, as one table."""
    results = [rows for _, rows in each_part(output, table, columns, parts)]
    if results:
        return pa.concat_tables(results)
    expected = _schema_of(table, columns)
    return pa.table({name: [] for name in columns or ()}) if expected is None else expected.empty_table()


def _schema_of(table: str, columns: list[str] | None) -> pa.Schema | None:
    """None for tables whose schema depends on the run."""
    expected = schema.TABLES.get(table)
    return expected if expected is None or columns is None else pa.schema([expected.field(name) for name in columns])
