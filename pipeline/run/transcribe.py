"""The transcribe job from configuration to `_SUCCESS`: plan, run what is not done, account for everything."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pyarrow as pa
from rich.console import Console

from pipeline import schema
from pipeline.assemble import assemble
from pipeline.audio.bucket import padding_waste_pct
from pipeline.commit import FAILED_SUFFIX, failure_place, replace_recordings, saved_results, write_part
from pipeline.config import TranscribeConfig
from pipeline.errors import RunFailed, UsageError
from pipeline.models.checkpoint import check_options, find_checkpoint, resolve_device
from pipeline.plan import planned_table, split_by_part
from pipeline.run.progress import RunProgress
from pipeline.run.settle import run_record, settle
from pipeline.run.spec import RunSpec
from pipeline.storage import ledger
from pipeline.storage.fs import Place, absolute, protocol, remove_stale_temporaries
from pipeline.storage.sources import Listing, list_inputs

Summary = dict[str, Any]
NUM_PASSES = 2
"""Over the parts, before those that workers die on are taken apart."""


def transcribe(config: TranscribeConfig, console: Console) -> Summary:
    """Runs the job; the same call again does only what is left.

    Args:
        config: the job.
        console: for progress and notes.

    Returns:
        Counts and times, as in OUTPUT/ledger/run-*.json.

    Raises:
        UsageError: an input, the model, an option or the output cannot be used.
        RunFailed: parts could not be finished.
    """
    started = time.time()
    _check_places(config)
    output = Place(absolute(config.output.output), config.plan.storage_options)
    listing = _listed(config)
    checkpoint = find_checkpoint(config.model, config.plan.storage_options)
    check_options(checkpoint, config.model)
    if config.output.overwrite:
        ledger.clear(output)
    remove_stale_temporaries(output)
    with _engine(config) as (engine, device):
        spec, fields = settle(config, checkpoint, device)
        ledger.guard(output, fields, run_record(config))
        plan = _planned(config, listing, output, console)
        if config.output.retry_rejected:
            todo = _retry(plan, spec, engine, console)
        else:
            todo = _run(plan, spec, engine, console, config.output.quiet)
        summary = _summary(output, todo, started, spec)
    _finish(output, plan, summary)
    return summary


def _check_places(config: TranscribeConfig) -> None:
    in_memory = [url for url in (*config.inputs, config.output.output) if protocol(url) == "memory"]
    if in_memory and config.engine.engine == "ray":
        raise UsageError(f"{in_memory[0]}: memory:// lives in one process and Ray has many; use --engine local")


@contextlib.contextmanager
def _engine(config: TranscribeConfig) -> Iterator[tuple[ModuleType, str]]:
    """The engine's module, with its session open, and the device that models will use."""
    if config.engine.engine == "local":
        from pipeline.run import local

        yield local, resolve_device(config.model.device)
        return
    from pipeline.run import on_ray

    is_elsewhere = config.engine.ray_address is not None
    device = config.model.device if is_elsewhere else resolve_device(config.model.device)
    with on_ray.session(config.engine, config.output.verbose):
        yield on_ray, ("cuda" if on_ray.cluster_has_gpus() else "cpu") if device == "auto" else device


def _listed(config: TranscribeConfig) -> Listing:
    return list_inputs(config.inputs, config.plan.storage_options, config.plan.audio_root, config.output.output)


def _planned(config: TranscribeConfig, listing: Listing, output: Place, console: Console) -> pa.Table:
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
            part_seconds=config.plan.part_seconds,
            storage_options=config.plan.storage_options,
        )
        if ledger.add_to_plan(output, addition, len(names)):
            if not config.output.quiet:
                _tell(console, listing, addition, plan)
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


def _run(plan: pa.Table, spec: RunSpec, engine: ModuleType, console: Console, quiet: bool) -> dict[int, pa.Table]:
    """Runs the parts that are not in the ledger; returns them."""
    done = ledger.done_parts(spec.output)
    todo = {part: rows for part, rows in split_by_part(plan).items() if part not in done}
    if not todo:
        return todo
    for name in spec.output.join("_pieces").names():
        if name.endswith(FAILED_SUFFIX):  # of an earlier run
            spec.output.join("_pieces", name).remove()
    planned_s = {part: sum(rows.column("planned_s").to_pylist()) for part, rows in todo.items()}
    with RunProgress(console, sum(planned_s.values()), len(todo), quiet) as progress:
        for _ in range(NUM_PASSES):
            missing = {part: rows for part, rows in todo.items() if part not in done}
            if not missing:
                break
            for counts in engine.run_parts(list(missing.items()), spec):
                for row in counts.to_pylist():
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
    num_crashed = sum(r["reason"] == "worker_crashed" for result in results for r in result["rejections"])
    if num_crashed == len(rows) > 1:
        raise RunFailed(f"part {part}: its workers died on every recording; run again with --verbose to see why")
    write_part(spec.output, part, assemble(results), results, spec.digest, time.perf_counter())


def _apart(rows: list[dict[str, Any]], spec: RunSpec, engine: ModuleType) -> list[list[dict[str, Any]]]:
    """Result rows of each recording, run apart from the others; one that killed its workers twice is rejected."""
    folder = spec.output.join("_pieces", "apart")
    folder.remove(recursive=True)
    engine.run_isolated(dict(enumerate(rows)), spec, folder)
    for number in sorted(set(range(len(rows))) - saved_results(folder).keys()):
        engine.run_isolated({number: rows[number]}, spec, folder)
    saved = saved_results(folder)
    folder.remove(recursive=True)
    return [saved.get(number) or [_crashed(row)] for number, row in enumerate(rows)]


def _crashed(row: dict[str, Any]) -> dict[str, Any]:
    named = {name: row[name] for name in ("id", "source", "member")}
    detail = "expected a transcript, got dead workers each time this recording was run, also alone"
    rejection = {**named, "stage": "infer", "reason": "worker_crashed", "detail": detail}
    return {
        "segments": [],
        "lost": [],
        "endings": [],
        "rejections": [rejection],
        "seconds": [],
        "began": None,
    }


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
    results_of: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for row, results in zip(todo, _apart(todo, spec, engine) if todo else [], strict=True):
        results_of[row["part"]] += results
    for part, results in results_of.items():
        order = parts[part].column("id").to_pylist()
        replace_recordings(spec.output, part, order, assemble(results), results, spec.digest)
    return {part: parts[part] for part in results_of}


def _summary(output: Place, todo: dict[int, pa.Table], started: float, spec: RunSpec) -> Summary:
    """Sums over the ledger; times of this run only. Start-up ends when the model is given its first piece."""
    wall_s = time.time() - started
    startup_s = wall_s
    sums: defaultdict[str, float] = defaultdict(float)
    reasons: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    audio_now = 0.0
    for entry in ledger.entries(output):
        for name in (
            "num_recordings",
            "num_segments",
            "num_rejections",
            "duration_s",
            "speech_s",
            "non_speech_s",
            "failed_s",
        ):
            sums[name] += entry[name]
        reasons.update(entry["rejections"])
        if entry["part"] in todo:
            audio_now += entry["duration_s"]
            startup_s = min(startup_s, (entry["began"] or started + wall_s) - started)
            for stage, value in entry["seconds"].items():
                seconds[stage] += value
    real, padded = seconds.pop("infer_real_audio", 0.0), seconds.pop("infer_padded_audio", 0.0)
    return {
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **{name: int(value) if name.startswith("num_") else value for name, value in sums.items()},
        "rejections": dict(reasons),
        "num_parts_this_run": len(todo),
        "audio_s_this_run": audio_now,
        "wall_s": wall_s,
        "startup_s": startup_s,
        "x_real_time": audio_now / max(wall_s - startup_s, 1e-9),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "padding_waste_pct": padding_waste_pct(real, padded),
        "device_busy_pct": min(100.0, 100.0 * seconds["infer"] / (max(wall_s - startup_s, 1e-9) * spec.engine.actors)),
        "device": spec.model.device,
        "precision": spec.model.precision,
        "engine": spec.engine.engine,
    }


def _finish(output: Place, plan: pa.Table, summary: Summary) -> None:
    """Checks that every planned recording is accounted for, then says so."""
    missing = set(plan.column("part").to_pylist()) - ledger.done_parts(output)
    if missing:
        raise RunFailed(
            f"{len(missing)} parts are not finished, the first is {min(missing)}; run the same command again"
        )
    accounted = summary["num_recordings"] + summary["num_rejections"]
    assert accounted >= plan.num_rows, f"{plan.num_rows} recordings planned, {accounted} accounted for"
    if summary["num_parts_this_run"]:
        stamp = summary["finished"].replace(":", "").replace("+0000", "Z")
        output.join("ledger", f"run-{stamp}.json").write(json.dumps(summary, indent=1, sort_keys=True).encode())
    output.join("_pieces").remove(recursive=True)
    output.join("_SUCCESS").write(
        json.dumps({"num_recordings": plan.num_rows, "tables": sorted(schema.TABLES)}).encode()
    )
