"""A job from configuration to `_SUCCESS`: plan, run what is not done, account for everything."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from audiomill.config.fields import build, defaults_of, typed
from audiomill.config.jobs import BY_NAME, JobConfig
from audiomill.config.run import is_mine
from audiomill.errors import RunError, UsageError
from audiomill.models.batch import Difference
from audiomill.runs.engine import check_places, engine_line, open_engine, with_engine
from audiomill.runs.planning import listing_of, plan_of, with_access, with_part_seconds
from audiomill.runs.poison_isolation import isolate, retry_rejected
from audiomill.runs.record import record_verification, run_record
from audiomill.runs.resolve_checkpoints import resolve_tasks
from audiomill.runs.resolve_config import resolve_run, with_part_size
from audiomill.sources.listing import Listing
from audiomill.sources.shards import KNOWS_SIZE
from audiomill.stages.failures import forget_failures, hung_on
from audiomill.stages.spec import RunSpec
from audiomill.stages.steps.verify import choose_segments, differs_from_transformers, verdict
from audiomill.stages.write import declare_complete, write_result
from audiomill.storage import ledger
from audiomill.storage.fs import Place, remove_stale_temporaries
from audiomill.storage.ledger import split_by_part
from audiomill.storage.part_files import part_name
from audiomill.storage.urls import absolute
from audiomill.tables.outputs import table_names
from audiomill.tables.voice_tables import drop_voices
from audiomill.watch.follow import inside
from audiomill.watch.journal import tell, tell_part
from audiomill.watch.meter import Meter
from audiomill.watch.metrics import export_metrics
from audiomill.watch.progress import RunProgress, counted
from audiomill.watch.summary import Summary, summarise
from audiomill.watch.traces import tracer

LOOKS, LOOK_AGAIN_S = 100, 0.2
"""At the end of a run, while other runs add to the output."""
NUM_PASSES = 2
"""Over the parts, before those that workers die on are taken apart."""


def run_job(
    config: JobConfig,
    console: Console,
    listing: Listing | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Summary:
    """Runs a job; the same call again does only what is left.

    Args:
        config: the job, see `audiomill.config.jobs`.
        console: for progress and notes.
        listing: recordings to run in place of what the inputs hold.
        enough: asked after each part; the run ends there, unfinished, if it says so.

    Returns:
        Counts and times, as in OUTPUT/ledger/run-*.json.

    Raises:
        UsageError: an input, a model, an option or the output cannot be used.
        RunError: parts could not be finished, or the verification found a difference.
    """
    started = time.time()
    asked, config = config, with_engine(config)
    check_places(config)
    output = Place(absolute(config.output.output), config.plan.storage_options)
    listing = listing_of(config) if listing is None else listing
    asked, config = with_access(asked, listing), with_access(config, listing)
    tasks = resolve_tasks(config)
    with open_engine(config) as opened:
        claim = {} if config.output.overwrite else ledger.claim_of(output)
        config, durations = with_part_seconds(config, listing, claim, opened.device)
        spec, fields = resolve_run(config, tasks, opened.device, opened.features, claim.get("results"))
        claimed = _claim(asked, config, output, fields, console)
        if asked.plan.part_seconds is None:  # of runs that come at once the first one chooses
            config = with_part_seconds(asked, listing, claimed, opened.device)[0]
            spec = with_part_size(spec, config.plan.part_seconds)
        _withdraw_damaged(output, console)
        plan = plan_of(listing, spec, output, console, config, durations)
        with tracer(config.watch.traces, console) as traced:
            if config.output.retry_rejected:
                todo, gained_s = retry_rejected(plan, spec, opened.module, console)
            else:
                todo, gained_s = _run(plan, spec, opened.module, console, config, traced, enough), None
            if enough():
                return summarise(list(ledger.entries(output)), todo, started, gained_s, spec)
            summary = _finish(output, todo, started, gained_s, spec)
    tell(console, "run_finished", **{name: value for name, value in summary.items() if name != "codes_usage"})
    return summary


def run_by_name(job: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> Summary:
    """See `audiomill.run`.

    Raises:
        UsageError: no such job or option.
    """
    if job not in BY_NAME:
        raise UsageError(f"{job}: expected one of {', '.join(BY_NAME)}; other jobs are on the command line")
    kind = BY_NAME[job]
    config: Any = build(kind, {**typed(kind, options), "inputs": _places(inputs)})
    return run_job(config.job(), Console(stderr=True))


def _places(inputs: Sequence[Any]) -> tuple[str, ...]:
    """Paths and URLs from what was given in their place: paths, and lists of them.

    Raises:
        UsageError: something else, or nothing.
    """
    flat = [each for given in inputs for each in (given if isinstance(given, (list, tuple)) else [given])]
    for each in flat:
        if not isinstance(each, (str, os.PathLike)):
            raise UsageError(f"INPUT: expected paths or URLs, got {type(each).__name__}; write sound to a file first")
    if not flat:
        raise UsageError("INPUT is missing: name a file, folder, glob, shard or manifest")
    return tuple(map(str, flat))


def _claim(
    asked: JobConfig, config: JobConfig, output: Place, fields: dict[str, Any], console: Console
) -> dict[str, Any]:
    """Makes the output this job's, or checks that it is; clears it first where that was asked for. Returns run.json."""
    if asked.engine.engine == "auto" and not config.output.quiet:
        console.print(engine_line(asked), highlight=False, soft_wrap=True)
    if config.output.overwrite:
        ledger.clear_output(output, table_names())
        if not config.speakers.save_speaker_embeddings:
            drop_voices(output)
    remove_stale_temporaries(output)
    return ledger.guard(output, fields, run_record(config), defaults_of(*BY_NAME.values()))


def _run(
    plan: pa.Table,
    spec: RunSpec,
    engine: ModuleType,
    console: Console,
    config: JobConfig,
    traced: Callable[[Mapping[str, Any]], None],
    enough: Callable[[], bool],
) -> dict[int, pa.Table]:
    """Runs the parts that are not in the ledger; returns them."""
    done = ledger.done_parts(spec.output)
    todo = {
        part: rows
        for part, rows in split_by_part(plan).items()
        if part not in done and is_mine(part, config.engine.array_task)
    }
    if not todo:
        return todo
    for part in todo:
        forget_failures(spec.output, part)
    if done and not config.output.quiet:
        _tell_done(console, plan, done)
    spec = dataclasses.replace(
        spec, verify_segments=choose_segments(list(todo), config.engine.verify_segments, spec.digest)
    )
    planned_s = {part: sum(rows.column("planned_s").to_pylist()) for part, rows in todo.items()}
    meter = Meter(planned_s, {part: _bytes(rows) for part, rows in todo.items()}, spec.engine.num_actors)
    tell(
        console, "run_started", output=spec.output.url, parts=len(todo), hours=round(sum(planned_s.values()) / 3600, 4)
    )
    with (
        export_metrics(meter, config.watch.metrics, engine.publisher(config.watch.metrics, config.engine.ray_address)),
        RunProgress(
            console, sum(planned_s.values()), len(todo), config.output.quiet, lambda: inside(spec.output)
        ) as progress,
    ):
        for entry in _passes(todo, spec, engine, meter, console):
            traced(entry)
            progress.part_done(entry["duration_s"], planned_s[entry["part"]], entry["num_rejections"], entry["began"])
            if enough():
                return todo
        for entry in _isolated(todo, spec, engine, meter, console):
            traced(entry)
            progress.part_done(entry["duration_s"], planned_s[entry["part"]], entry["num_rejections"])
        meter.parts_failed = 0
        meter.waiting.update(dict.fromkeys(meter.waiting, 0))
    return todo


def _isolated(
    todo: Mapping[int, pa.Table], spec: RunSpec, engine: ModuleType, meter: Meter, console: Console
) -> Iterator[dict[str, Any]]:
    """Ledger entries of the parts that kept failing, their recordings run one by one."""
    done = ledger.done_parts(spec.output)
    for part, rows in todo.items():
        if part not in done:
            entry, crashed = isolate(part, rows.to_pylist(), spec, engine)
            meter.part_done(entry)
            tell_part(console, entry, crashed)
            yield entry


def _withdraw_damaged(output: Place, console: Console) -> None:
    """Parts whose files were damaged since they were written are made anew."""
    for part, why in ledger.damaged(output).items():
        console.print(f"warning: part {part} is made anew: {why}", highlight=False, soft_wrap=True)
        ledger.withdraw(output, part)


def _tell_done(console: Console, plan: pa.Table, done: set[int]) -> None:
    """What an earlier run has finished."""
    parts = plan.column("part")
    finished = sum(part in done for part in parts.to_pylist())
    text = f"already done: {len(done)} of {counted(pc.count_distinct(parts).as_py(), 'part')}, "
    text += f"{finished} of {counted(plan.num_rows, 'recording')}"
    console.print(text, highlight=False, soft_wrap=True)


def _passes(
    todo: dict[int, pa.Table], spec: RunSpec, engine: ModuleType, meter: Meter, console: Console
) -> Iterator[dict[str, Any]]:
    """Runs the parts, what is missing once more (but where a model hung: that would take as long again); yields the ledger entries of finished ones."""

    def write(result: pa.Table) -> pa.Table:
        return write_result(result, spec.output, spec.tables, spec.digest, spec.pieces_key)

    missing = dict(todo)
    for _ in range(NUM_PASSES):
        for counts in engine.run_parts(list(missing.items()), spec, write, meter.waiting):
            for row in counts.to_pylist():
                if row["is_done"]:
                    entry = json.loads(row["entry"])
                    meter.part_done(entry)
                    tell_part(console, entry, json.loads(row["rejected"]))
                    if entry["verification"]:
                        _check_verification(Difference(**entry["verification"]), spec)
                    yield entry
        done = ledger.done_parts(spec.output)
        missing = {part: rows for part, rows in todo.items() if part not in done}
        meter.parts_failed = len(missing)
        missing = {part: rows for part, rows in missing.items() if hung_on(spec.output, part) is None}
        if not missing:
            break


def _bytes(rows: pa.Table) -> int:
    """Encoded bytes of plan rows, where they are known."""
    pairs = zip(rows.column("kind").to_pylist(), rows.column("size").to_pylist(), strict=True)
    return sum(size or 0 for kind, size in pairs if kind in KNOWS_SIZE)


def _check_verification(difference: Difference, spec: RunSpec) -> None:
    """Raises RunFailed when a batch gave something else than its segments give alone, or a model than transformers' own."""
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


def _finish(output: Place, todo: dict[int, pa.Table], started: float, gained_s: float | None, spec: RunSpec) -> Summary:
    """Checks that every planned recording is accounted for, then says so. A shard ends with its own parts.

    Other shards finish parts, and other runs plan new ones, while this looks: it looks again until two looks agree.
    """
    for _ in range(LOOKS):
        names = ledger.plan_files(output)
        plan = ledger.load_plan(output, names)
        assert plan is not None
        entries = list(ledger.entries(output))
        summary = summarise(entries, todo, started, gained_s, spec)
        missing = set(plan.column("part").to_pylist()) - {entry["part"] for entry in entries}
        summary["num_parts_left"] = len(missing)
        if missing and spec.engine.array_task is None:
            raise RunError(
                f"{len(missing)} parts are not finished, the first is {min(missing)}; run the same command again"
            )
        if missing and not missing & ledger.done_parts(output):
            break
        if not missing:
            _check_counts(plan, entries)
            declare_complete(output, plan.num_rows, list(spec.tables.schemas))
            if ledger.plan_files(output) == names:
                output.join("_pieces").remove(recursive=True)
                break
            output.join("_SUCCESS").remove()
        time.sleep(LOOK_AGAIN_S)
    _record(output, summary, spec)
    return summary


def _check_counts(plan: pa.Table, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raises RunFailed where a part's ledger entry counts other recordings than were planned for it."""
    planned = Counter(plan.column("part").to_pylist())
    for entry in entries:
        accounted = entry["num_recordings"] + entry["num_rejections"]
        if accounted != planned[entry["part"]]:
            raise RunError(
                f"part {entry['part']}: {planned[entry['part']]} recordings planned, {accounted} accounted for; "
                f"delete ledger/{part_name(entry['part'])}.json and run the same command again"
            )


def _record(output: Place, summary: Summary, spec: RunSpec) -> None:
    """Keeps what this run did."""
    difference = Difference(**summary["verification"])
    if difference.num_segments:
        record_verification(output, difference)
        if spec.engine.verify_segments:
            _check_verification(difference, spec)
    if summary["num_parts_this_run"]:
        stamp = summary["finished"].replace(":", "").replace("+0000", "Z")
        shard = "" if spec.engine.array_task is None else "-shard-" + spec.engine.array_task.replace("/", "-of-")
        output.join("ledger", f"run-{stamp}{shard}.json").write(json.dumps(summary, indent=1, sort_keys=True).encode())
