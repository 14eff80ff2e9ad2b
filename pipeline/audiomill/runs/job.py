"""A job from configuration to `_SUCCESS`: open, plan, process, finish."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console

from audiomill.config.fields import build, typed
from audiomill.config.jobs import BY_NAME, JobConfig
from audiomill.errors import RunError, UsageError
from audiomill.models.batch import Difference
from audiomill.runs.open_run import Run, open_run
from audiomill.runs.planning import plan_of
from audiomill.runs.poison_isolation import process_rejected
from audiomill.runs.process_parts import check_verification, process_parts
from audiomill.runs.record import record_verification
from audiomill.sources.listing import Listing
from audiomill.stages.write import declare_complete
from audiomill.storage import ledger
from audiomill.storage.part_files import part_name
from audiomill.watch.journal import tell
from audiomill.watch.summary import Summary, summarise

LOOKS, LOOK_AGAIN_S = 100, 0.2
"""At the end of a run, while other runs add to the output."""


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
    with open_run(config, console, listing) as run:
        plan = plan_of(run)
        process = process_rejected if config.output.retry_rejected else process_parts
        worked: dict[int, float] = {}
        with contextlib.closing(process(run, plan)) as parts:
            for part, seconds in parts:
                worked[part] = worked.get(part, 0.0) + seconds
                if enough():
                    return _summary(run, list(ledger.entries(run.output)), worked)
        summary = _finish(run, worked)
    tell(console, "run_finished", **{name: value for name, value in summary.items() if name != "codes_usage"})
    return summary


def _summary(run: Run, entries: Sequence[dict[str, Any]], worked: Mapping[int, float]) -> Summary:
    return summarise(entries, worked, run.started, run.spec)


def _finish(run: Run, worked: Mapping[int, float]) -> Summary:
    """Checks that every planned recording is accounted for, then says so. A shard ends with its own parts.

    Other shards finish parts, and other runs plan new ones, while this looks: it looks again until two looks agree.
    """
    output = run.output
    for _ in range(LOOKS):
        names = ledger.plan_files(output)
        plan = ledger.load_plan(output, names)
        assert plan is not None
        entries = list(ledger.entries(output))
        summary = _summary(run, entries, worked)
        missing = set(plan.column("part").to_pylist()) - {entry["part"] for entry in entries}
        summary["num_parts_left"] = len(missing)
        if missing and run.spec.engine.array_task is None:
            raise RunError(
                f"{len(missing)} parts are not finished, the first is {min(missing)}; run the same command again"
            )
        if missing and not missing & ledger.done_parts(output):
            break
        if not missing:
            _check_counts(plan, entries)
            declare_complete(output, plan.num_rows, list(run.spec.tables.schemas))
            if ledger.plan_files(output) == names:
                output.join("_pieces").remove(recursive=True)
                break
            output.join("_SUCCESS").remove()
        time.sleep(LOOK_AGAIN_S)
    _record(run, summary)
    return summary


def _check_counts(plan: pa.Table, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raises RunError where a part's ledger entry counts other recordings than were planned for it."""
    planned = Counter(plan.column("part").to_pylist())
    for entry in entries:
        accounted = entry["num_recordings"] + entry["num_rejections"]
        if accounted != planned[entry["part"]]:
            raise RunError(
                f"part {entry['part']}: {planned[entry['part']]} recordings planned, {accounted} accounted for; "
                f"delete ledger/{part_name(entry['part'])}.json and run the same command again"
            )


def _record(run: Run, summary: Summary) -> None:
    """Keeps what this run did."""
    difference = Difference(**summary["verification"])
    if difference.num_segments:
        record_verification(run.output, difference)
        if run.spec.engine.verify_segments:
            check_verification(difference, run.spec)
    if summary["num_parts_this_run"]:
        stamp = summary["finished"].replace(":", "").replace("+0000", "Z")
        array_task = run.spec.engine.array_task
        shard = "" if array_task is None else "-shard-" + array_task.replace("/", "-of-")
        run.output.join("ledger", f"run-{stamp}{shard}.json").write(
            json.dumps(summary, indent=1, sort_keys=True).encode()
        )


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
