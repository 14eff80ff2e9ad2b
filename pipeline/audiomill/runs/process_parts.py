"""The parts of a plan that are not done: run, run again where workers died, at last recording by recording."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from audiomill.config.run import is_mine
from audiomill.errors import RunError
from audiomill.models.batch import Difference
from audiomill.runs.open_run import Run
from audiomill.runs.poison_isolation import isolate
from audiomill.runs.record import record_verification
from audiomill.sources.shards import KNOWS_SIZE
from audiomill.stages.failures import forget_failures, hung_on
from audiomill.stages.spec import RunSpec
from audiomill.stages.steps.verify import choose_segments, differs_from_transformers, verdict
from audiomill.stages.write import write_result
from audiomill.storage import ledger
from audiomill.storage.ledger import split_by_part
from audiomill.watch.follow import inside
from audiomill.watch.journal import tell, tell_part
from audiomill.watch.meter import Meter
from audiomill.watch.metrics import export_metrics
from audiomill.watch.progress import RunProgress, counted
from audiomill.watch.traces import tracer

NUM_PASSES = 2
"""Over the parts, before those that workers die on are taken apart."""


def process_parts(run: Run, plan: pa.Table) -> Generator[tuple[int, float]]:
    """Runs the parts that are not in the ledger; yields the number and the seconds of audio of each, when it is written."""
    config, console, done = run.config, run.console, ledger.done_parts(run.output)
    todo = {
        part: rows
        for part, rows in split_by_part(plan).items()
        if part not in done and is_mine(part, config.engine.array_task)
    }
    if not todo:
        return
    for part in todo:
        forget_failures(run.output, part)
    if done and not config.output.quiet:
        _print_done(run, plan, done)
    spec = dataclasses.replace(
        run.spec, verify_segments=choose_segments(list(todo), config.engine.verify_segments, run.spec.digest)
    )
    planned_s = {part: sum(rows.column("planned_s").to_pylist()) for part, rows in todo.items()}
    total_s = sum(planned_s.values())
    meter = Meter(planned_s, {part: _bytes(rows) for part, rows in todo.items()}, spec.engine.num_actors)
    tell(console, "run_started", output=run.output.url, parts=len(todo), hours=round(total_s / 3600, 4))
    publisher = run.engine.publisher(config.watch.metrics, config.engine.ray_address)
    with (
        tracer(config.watch.traces, console) as traced,
        export_metrics(meter, config.watch.metrics, publisher),
        RunProgress(console, total_s, len(todo), config.output.quiet, lambda: inside(run.output)) as progress,
    ):
        for entry, began in _entries(run, spec, todo, meter):
            traced(entry)
            progress.part_done(entry["duration_s"], planned_s[entry["part"]], entry["num_rejections"], began)
            yield entry["part"], entry["duration_s"]
        meter.parts_failed = 0
        meter.waiting.update(dict.fromkeys(meter.waiting, 0))


def _entries(
    run: Run, spec: RunSpec, todo: Mapping[int, pa.Table], meter: Meter
) -> Iterator[tuple[dict[str, Any], float | None]]:
    """Ledger entries of the parts as they are written, and when their models began."""
    for entry in _passes(run, spec, todo, meter):
        yield entry, entry["began"]
    done = ledger.done_parts(run.output)
    for part, rows in todo.items():
        if part not in done:
            entry, rejections = isolate(part, rows.to_pylist(), spec, run.engine)
            meter.part_done(entry)
            tell_part(run.console, entry, rejections)
            yield entry, None


def _passes(run: Run, spec: RunSpec, todo: Mapping[int, pa.Table], meter: Meter) -> Iterator[dict[str, Any]]:
    """Runs the parts, what is missing once more (but where a model hung: that would take as long again)."""

    def write(result: pa.Table) -> pa.Table:
        return write_result(result, spec.output, spec.tables, spec.digest, spec.pieces_key)

    missing = dict(todo)
    for _ in range(NUM_PASSES):
        for counts in run.engine.run_parts(list(missing.items()), spec, write, meter.waiting):
            for row in counts.to_pylist():
                if row["is_done"]:
                    entry = json.loads(row["entry"])
                    meter.part_done(entry)
                    tell_part(run.console, entry, json.loads(row["rejected"]))
                    if entry["verification"]:
                        check_verification(Difference(**entry["verification"]), spec)
                    yield entry
        done = ledger.done_parts(run.output)
        missing = {part: rows for part, rows in todo.items() if part not in done}
        meter.parts_failed = len(missing)
        missing = {part: rows for part, rows in missing.items() if hung_on(run.output, part) is None}
        if not missing:
            break


def check_verification(difference: Difference, spec: RunSpec) -> None:
    """Raises RunError when a batch gave something else than its segments give alone, or a model than transformers' own."""
    loosest = max(spec.precisions, key=lambda name: name != "fp32")
    wrong, unlike = verdict(difference, loosest), differs_from_transformers(difference, loosest)
    if wrong is None and unlike is None:
        return
    record_verification(spec.output, difference)
    if wrong is not None:
        raise RunError(
            f"verification: segments give something else in a batch than alone: {wrong}. Results cannot be trusted; "
            "try --precision fp32 or another version of torch, or turn the check off with --verify-segments 0"
        )
    raise RunError(
        f"verification: {unlike}. The checkpoint is read otherwise here than there: please report it with its config.json and "
        "preprocessor files; --verify-segments 0 turns the check off"
    )


def _print_done(run: Run, plan: pa.Table, done: set[int]) -> None:
    """What an earlier run has finished."""
    parts = plan.column("part")
    finished = sum(part in done for part in parts.to_pylist())
    text = f"already done: {len(done)} of {counted(pc.count_distinct(parts).as_py(), 'part')}, "
    text += f"{finished} of {counted(plan.num_rows, 'recording')}"
    run.console.print(text, highlight=False, soft_wrap=True)


def _bytes(rows: pa.Table) -> int:
    """Encoded bytes of plan rows, where they are known."""
    kinds, sizes = rows.column("kind").to_pylist(), rows.column("size").to_pylist()
    return sum(size or 0 for kind, size in zip(kinds, sizes, strict=True) if kind in KNOWS_SIZE)
