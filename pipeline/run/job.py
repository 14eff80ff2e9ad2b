"""A job from configuration to `_SUCCESS`: plan, run what is not done, account for everything."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pyarrow as pa
from rich.console import Console

from pipeline.assemble import assemble
from pipeline.canary import Difference, spread, verdict
from pipeline.commit import FAILED_SUFFIX, failure_place, replace_recordings, saved_results, write_part, write_result
from pipeline.config import size_in_bytes
from pipeline.errors import RunFailed, UsageError
from pipeline.job_config import JobConfig
from pipeline.models.checkpoint import resolve_device
from pipeline.plan import planned_table, split_by_part
from pipeline.result import Result
from pipeline.run.progress import RunProgress, size_text
from pipeline.run.record import record_canary, run_record
from pipeline.run.settle import found_tasks, settle
from pipeline.run.spec import RunSpec
from pipeline.run.summary import Summary, summarise
from pipeline.storage import ledger
from pipeline.storage.fs import Place, absolute, protocol, remove_stale_temporaries
from pipeline.storage.sources import Listing, list_inputs

NUM_PASSES = 2
"""Over the parts, before those that workers die on are taken apart."""


def run_job(config: JobConfig, console: Console) -> Summary:
    """Runs a job; the same call again does only what is left.

    Args:
        config: the job, see `pipeline.job_config`.
        console: for progress and notes.

    Returns:
        Counts and times, as in OUTPUT/ledger/run-*.json.

    Raises:
        UsageError: an input, a model, an option or the output cannot be used.
        RunFailed: parts could not be finished, or the canary found a difference.
    """
    started = time.time()
    check_places(config)
    output = Place(absolute(config.output.output), config.plan.storage_options)
    listing = listed(config)
    tasks = found_tasks(config)
    with open_engine(config) as (engine, device):
        before = {} if config.output.overwrite else ledger.settled_before(output)
        spec, fields = settle(config, tasks, device, before)
        if config.output.overwrite:
            ledger.clear(output)
        remove_stale_temporaries(output)
        ledger.guard(output, fields, run_record(config))
        plan = _planned(listing, spec, output, console, config)
        if config.output.retry_rejected:
            todo = _retry(plan, spec, engine, console)
        else:
            todo = _run(plan, spec, engine, console, config)
        summary = summarise(output, todo, started, spec)
    _finish(output, plan, summary, spec)
    return summary


def check_places(config: JobConfig) -> None:
    """Raises UsageError for places that the engine cannot share."""
    in_memory = [url for url in (*config.inputs, config.output.output) if protocol(url) == "memory"]
    if in_memory and config.engine.engine == "ray":
        raise UsageError(f"{in_memory[0]}: memory:// lives in one process and Ray has many; use --engine local")


@contextlib.contextmanager
def open_engine(config: JobConfig) -> Iterator[tuple[ModuleType, str]]:
    """The engine's module, with its session open, and the device that models will use."""
    wanted = config.tasks[0].model.device
    if config.engine.engine == "local":
        from pipeline.run import local

        yield local, resolve_device(wanted)
        return
    from pipeline.run import on_ray

    is_elsewhere = config.engine.ray_address is not None
    device = wanted if is_elsewhere else resolve_device(wanted)
    with on_ray.session(config.engine, config.output.verbose):
        yield on_ray, ("cuda" if on_ray.cluster_has_gpus() else "cpu") if device == "auto" else device


def listed(config: JobConfig) -> Listing:
    """What the inputs hold."""
    return list_inputs(config.inputs, config.plan.storage_options, config.plan.audio_root, config.output.output)


def _planned(listing: Listing, spec: RunSpec, output: Place, console: Console, config: JobConfig) -> pa.Table:
    """The plan on file, with new inputs added to it; planned again if another run was faster."""
    while True:
        names = ledger.plan_files(output)
        plan = ledger.load_plan(output, names)
        known = set(plan.column("id").to_pylist()) if plan is not None else set()
        fresh = [entry for entry in listing.entries if entry.id not in known]
        if plan is not None and not fresh:
            return plan
        first_part = int(plan.column("part")[-1].as_py()) + 1 if plan is not None else 0
        addition = planned_table(
            fresh,
            first_part=first_part,
            part_seconds=spec.part_seconds,
            storage_options=config.plan.storage_options,
        )
        if ledger.add_to_plan(output, addition, len(names)):
            if not config.output.quiet:
                _tell(console, listing, addition, plan)
                _forecast(console, addition, spec, config)
            output.join("_SUCCESS").remove()
            return addition if plan is None else pa.concat_tables([plan, addition])


def _tell(console: Console, listing: Listing, addition: pa.Table, before: pa.Table | None) -> None:
    hours = sum(addition.column("planned_s").to_pylist()) / 3600
    parts = len(set(addition.column("part").to_pylist()))
    text = f"planned {addition.num_rows} {'new ' if before is not None else ''}recordings, about {hours:.2f} h, in {parts} parts"
    if listing.num_duplicates:
        text += f"; {listing.num_duplicates} named twice, taken once"
    if listing.ignored:
        text += "; ignored: " + ", ".join(f"{count} {kind}" for kind, count in listing.ignored.most_common(5))
    console.print(text, highlight=False, soft_wrap=True)


def _forecast(console: Console, addition: pa.Table, spec: RunSpec, config: JobConfig) -> None:
    """Bytes of the tables of frames, before they are paid for. Durations that headers do not tell are estimates."""
    hours = sum(addition.column("planned_s").to_pylist()) / 3600
    total = 0.0
    for name, per_second in spec.bytes_per_second.items():
        total += 3600 * per_second * hours
        most = "" if spec.segments.kind != "vad" else "at most "
        console.print(
            f"{name}: {most}{size_text(3600 * per_second)} an hour of audio, {most}{size_text(3600 * per_second * hours)} in all",
            highlight=False,
            soft_wrap=True,
        )
    if total > size_in_bytes(config.output.max_output_bytes):
        console.print(
            f"warning: the output is forecast to be larger than --max-output-bytes {config.output.max_output_bytes}; "
            "fewer --layers, --pool mean, --frame-stride 2, --dtype int8 or codes make it smaller",
            highlight=False,
            soft_wrap=True,
        )


def _run(plan: pa.Table, spec: RunSpec, engine: ModuleType, console: Console, config: JobConfig) -> dict[int, pa.Table]:
    """Runs the parts that are not in the ledger; returns them."""
    done = ledger.done_parts(spec.output)
    todo = {part: rows for part, rows in split_by_part(plan).items() if part not in done}
    if not todo:
        return todo
    for name in spec.output.join("_pieces").names():
        if name.endswith(FAILED_SUFFIX):  # of an earlier run
            spec.output.join("_pieces", name).remove()
    spec = dataclasses.replace(spec, canary=spread(list(todo), config.engine.canary, spec.digest))

    def write(result: pa.Table) -> pa.Table:
        return write_result(result, spec.output, spec.tables, spec.digest, spec.pieces_key)

    planned_s = {part: sum(rows.column("planned_s").to_pylist()) for part, rows in todo.items()}
    with RunProgress(console, sum(planned_s.values()), len(todo), config.output.quiet) as progress:
        for _ in range(NUM_PASSES):
            missing = {part: rows for part, rows in todo.items() if part not in done}
            if not missing:
                break
            for counts in engine.run_parts(list(missing.items()), spec, write):
                for row in counts.to_pylist():
                    if row["canary"]:
                        _check_canary(Difference(**json.loads(row["canary"])), spec)
                    if row["is_done"]:
                        progress.part_done(row["audio_s"], planned_s[row["part"]], row["rejections"])
            done = ledger.done_parts(spec.output)
    for part, rows in todo.items():
        if part not in done:
            _isolate(part, rows.to_pylist(), spec, engine)
    return todo


def _isolate(part: int, rows: list[dict[str, Any]], spec: RunSpec, engine: ModuleType) -> None:
    """Runs the recordings of a part that keeps failing one by one; those that fail alone are rejected."""
    why = _failure(spec.output, part)
    if why is not None:
        # An error that Python could raise is ours or the environment's, not a poisonous recording.
        raise RunFailed(f"part {part} failed: {why}; fix it and run the same command again")
    results = [result for found in _apart(rows, spec, engine) for result in found]
    num_crashed = sum(r["reason"] == "worker_crashed" for result in results for r in result.row["rejections"])
    if num_crashed == len(rows) > 1:
        raise RunFailed(f"part {part}: its workers died on every recording; run again with --verbose to see why")
    tables = assemble(results, spec.tables)
    write_part(spec.output, part, tables, results, spec.tables, spec.digest, time.perf_counter())


def _apart(rows: list[dict[str, Any]], spec: RunSpec, engine: ModuleType) -> list[list[Result]]:
    """Result rows of each recording, run apart from the others; one that killed its workers twice is rejected."""
    folder = spec.output.join("_pieces", "apart")
    folder.remove(recursive=True)
    engine.run_isolated(dict(enumerate(rows)), spec, folder)
    for number in sorted(set(range(len(rows))) - saved_results(folder).keys()):
        engine.run_isolated({number: rows[number]}, spec, folder)
    saved = saved_results(folder)
    folder.remove(recursive=True)
    return [saved.get(number) or [_crashed(row)] for number, row in enumerate(rows)]


def _crashed(row: dict[str, Any]) -> Result:
    named = {name: row[name] for name in ("id", "source", "member")}
    detail = "expected an answer, got dead workers each time this recording was run, also alone"
    rejection = {**named, "stage": "infer", "reason": "worker_crashed", "detail": detail}
    empty: dict[str, Any] = {name: [] for name in ("segments", "lost", "endings", "seconds")}
    return Result({**empty, "rejections": [rejection], "began": None, "canary": None}, {})


def _failure(output: Place, part: int) -> str | None:
    """Last line of the traceback that a worker left."""
    place = failure_place(output, part)
    return place.read().decode().strip().splitlines()[-1] if place.exists() else None


def _retry(plan: pa.Table, spec: RunSpec, engine: ModuleType, console: Console) -> dict[int, pa.Table]:
    """Runs the rejected recordings again and puts what now works in their place; returns the parts touched."""
    parts = split_by_part(plan)
    num_unfinished = len(parts.keys() - ledger.done_parts(spec.output))
    if num_unfinished:
        raise UsageError(
            f"--retry-rejected: {num_unfinished} parts of {spec.output.url} are not finished; run without it first"
        )
    rejected = set(ledger.tables(spec.output, "rejections", ["id"]).column("id").to_pylist())
    todo = [row for row in plan.to_pylist() if row["id"] in rejected]
    console.print(f"retrying {len(todo)} rejected recordings", highlight=False, soft_wrap=True)
    results_of: defaultdict[int, list[Result]] = defaultdict(list)
    for row, results in zip(todo, _apart(todo, spec, engine) if todo else [], strict=True):
        results_of[row["part"]] += results
    for part, results in results_of.items():
        order = parts[part].column("id").to_pylist()
        replace_recordings(spec.output, part, order, assemble(results, spec.tables), results, spec.tables, spec.digest)
    return {part: parts[part] for part in results_of}


def _check_canary(difference: Difference, spec: RunSpec) -> None:
    """Raises RunFailed when a batch gave something else than its segments give alone."""
    loosest = max(spec.precisions, key=lambda name: name != "fp32")
    wrong = verdict(difference, loosest)
    if wrong is not None:
        record_canary(spec.output, difference)
        raise RunFailed(
            f"canary: segments give something else in a batch than alone: {wrong}. Results cannot be trusted; "
            "try --precision fp32 or another version of torch, or turn the check off with --canary 0"
        )


def _finish(output: Place, plan: pa.Table, summary: Summary, spec: RunSpec) -> None:
    """Checks that every planned recording is accounted for, then says so."""
    missing = set(plan.column("part").to_pylist()) - ledger.done_parts(output)
    if missing:
        raise RunFailed(
            f"{len(missing)} parts are not finished, the first is {min(missing)}; run the same command again"
        )
    accounted = summary["num_recordings"] + summary["num_rejections"]
    assert accounted >= plan.num_rows, f"{plan.num_rows} recordings planned, {accounted} accounted for"
    difference = Difference(**summary["canary"])
    if difference.num_segments:
        record_canary(output, difference)
        if spec.engine.canary:
            _check_canary(difference, spec)
    if summary["num_parts_this_run"]:
        stamp = summary["finished"].replace(":", "").replace("+0000", "Z")
        output.join("ledger", f"run-{stamp}.json").write(json.dumps(summary, indent=1, sort_keys=True).encode())
    output.join("_pieces").remove(recursive=True)
    output.join("_SUCCESS").write(
        json.dumps({"num_recordings": plan.num_rows, "tables": sorted(spec.tables.schemas)}).encode()
    )
