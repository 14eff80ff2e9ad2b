"""Poison-pill isolation: recordings run one by one: those of a part that keeps failing, and those that are tried again."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from audiomill.errors import RunError, UsageError
from audiomill.runs.open_run import Run
from audiomill.stages.failures import failure_of, forget_progress, hung_on
from audiomill.stages.spec import RunSpec
from audiomill.stages.write import PartTarget, replace_recordings, saved_results, write_part
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.ledger import split_by_part
from audiomill.tables.assemble import Result, assemble
from audiomill.watch.journal import tell_part
from audiomill.watch.progress import counted

_AT_ONCE = 1_000
"""Rejected recordings that are tried again before their results are written."""


def isolate(
    part: int, rows: list[dict[str, Any]], spec: RunSpec, engine: ModuleType
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs the recordings of a part that keeps failing one by one; those that fail alone are rejected.

    Returns:
        The ledger entry, and the rejections.
    """
    why = failure_of(spec.output, part)
    if why is not None:
        # An error that Python could raise is ours or the environment's, not a poisonous recording.
        raise RunError(f"part {part} failed: {why}; fix it and run the same command again")
    forget_progress(spec.output, part)
    results = [result for outcome in _apart(rows, spec, engine) for result in outcome]
    reasons = [r["reason"] for result in results for r in result.row["rejections"]]
    num_crashed, num_hung = reasons.count("worker_crashed"), reasons.count("model_timeout")
    if num_crashed + num_hung == len(rows) > 1:
        what = "died" if num_crashed else "gave no sign of life"
        raise RunError(
            f"part {part}: its workers {what} on every recording; run again with --verbose to see why, and see whether memory is "
            "full: --batch-seconds makes batches smaller"
        )
    tables = assemble(results, spec.tables)
    planned = [row["id"] for row in rows]
    entry = write_part(
        PartTarget(spec.output, part, planned), tables, results, spec.tables, spec.digest, time.perf_counter()
    )
    return entry, tables["rejections"].to_pylist()


def _apart(rows: list[dict[str, Any]], spec: RunSpec, engine: ModuleType) -> list[list[Result]]:
    """Result rows of each recording, run apart from the others; one that killed its workers twice, or on which a
    model hung, is rejected."""
    folder = spec.output.join("_pieces", f"apart-{uuid.uuid4().hex[:12]}")  # other processes may do the same
    engine.run_isolated(dict(enumerate(rows)), spec, folder)
    for number in sorted(set(range(len(rows))) - saved_results(folder).keys()):
        if hung_on(folder, number) is not None:
            continue
        engine.run_isolated({number: rows[number]}, spec, folder)
    saved = saved_results(folder)
    results = [saved.get(number) or [result_of_lost(row, folder, number)] for number, row in enumerate(rows)]
    folder.remove(recursive=True)
    return results


def result_of_lost(row: dict[str, Any], notes: Place, number: int) -> Result:
    """The rejection of a recording that never gave a result, by what its worker left in the notes."""
    named = {name: row[name] for name in ("id", "source", "member")}
    error, model_timeout = failure_of(notes, number), hung_on(notes, number)
    if model_timeout is not None:
        reason, detail = "model_timeout", f"{model_timeout}, also alone"
    elif error is not None:
        reason, detail = "model_failed", f"expected an answer, got {error}"
    else:
        reason = "worker_crashed"
        detail = "expected an answer, got dead workers each time this recording was run, also alone"
    rejection = {**named, "stage": "infer", "reason": reason, "detail": detail}
    empty: dict[str, Any] = {name: [] for name in ("segments", "lost", "failures", "endings", "seconds", "planned")}
    return Result({**empty, "rejections": [rejection], "began": None, "verification": None}, {})


def process_rejected(run: Run, plan: pa.Table) -> Generator[tuple[int, float]]:
    """Runs the rejected recordings again and puts what now works in their place; yields the number of each part that is
    touched, and the seconds of audio that it gained."""
    spec, parts = run.spec, split_by_part(plan)
    num_unfinished = len(parts.keys() - ledger.done_parts(run.output))
    if num_unfinished:
        raise UsageError(
            f"--retry-rejected: {num_unfinished} parts of {run.output.url} are not finished; run without it first"
        )
    rejected = ledger.tables(run.output, "rejections", ["id"]).column("id")
    todo = plan.filter(pc.is_in(plan.column("id"), value_set=rejected.combine_chunks()))
    run.console.print(f"retrying {counted(todo.num_rows, 'rejected recording')}", highlight=False, soft_wrap=True)
    for rows in _together(split_by_part(todo).values()):
        results_of: defaultdict[int, list[Result]] = defaultdict(list)
        for row, results in zip(rows, _apart(rows, spec, run.engine), strict=True):
            results_of[row["part"]] += results
        for part, results in results_of.items():
            order, fresh = parts[part].column("id").to_pylist(), assemble(results, spec.tables)
            entry = replace_recordings(run.output, part, order, fresh, results, spec.tables, spec.digest)
            tell_part(run.console, entry, fresh["rejections"].to_pylist())
            yield part, sum(fresh["recordings"].column("duration_s").to_pylist())


def _together(tables: Iterable[pa.Table]) -> Iterator[list[dict[str, Any]]]:
    """Rows of whole parts, enough of them to keep all workers busy, few enough for the memory."""
    rows: list[dict[str, Any]] = []
    for table in tables:
        rows += table.to_pylist()
        if len(rows) >= _AT_ONCE:
            yield rows
            rows = []
    if rows:
        yield rows
