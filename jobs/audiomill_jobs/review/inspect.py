"""audiomill inspect: what an output holds, what was rejected and why, what to look at first."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

import click
import numpy as np
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from audiomill.errors import InputError
from audiomill.report.remarks import remarks
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.codes import usage
from audiomill.watch.journal import PlainConsole
from audiomill.watch.progress import counted
from audiomill_jobs.options import JsonMapping, WithExamples

NUM_WORST_SHOWN = 10
NUM_REJECTIONS = 20


EXAMPLES = """\
Examples:
  audiomill inspect out/ --all
  audiomill inspect s3://results/run1 --missing-array-tasks 64    which of 64 shards to start again
"""


@click.command("inspect", cls=WithExamples, epilog=EXAMPLES)
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--all",
    "show_all",
    is_flag=True,
    help=f"List every rejection and damaged recording, not only the first {NUM_REJECTIONS}.",
)
@click.option(
    "--missing-array-tasks",
    type=int,
    metavar="N",
    help="Print the shard numbers of --array-task I/N that have parts to do, by comma, and nothing else.",
)
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def inspect(
    output: str, show_all: bool, missing_array_tasks: int | None, storage_options: dict[str, Any] | None
) -> None:
    """Show counts, hours, rejections by reason, languages, least confident segments, throughput."""
    place = Place(output, storage_options or {})
    if missing_array_tasks is not None:
        click.echo(",".join(map(str, ledger.missing_array_tasks(place, missing_array_tasks))))
        return
    plan = ledger.load_plan(place)
    if plan is None:
        raise InputError(f"{output}: no plan.parquet; expected the --output of a run")
    console = PlainConsole()
    entries = list(ledger.entries(place))
    sums = ledger.totals(entries).numbers
    num_parts = len(set(plan.column("part").to_pylist()))
    is_closed = len(entries) == num_parts and place.join("_SUCCESS").exists()
    state = "complete" if is_closed else "unfinished, run the same command again to continue"
    console.print(f"{output}: {len(entries)}/{num_parts} parts, {state}")
    console.print(
        f"recordings {sums['num_recordings']:.0f}, segments {sums['num_segments']:.0f}, rejected {sums['num_rejections']:.0f} of {plan.num_rows} planned"
    )
    hours = {name: sums[f"{name}_s"] / 3600 for name in ("duration", "speech", "non_speech", "failed")}
    console.print("hours: " + ", ".join(f"{name} {value:.3f}" for name, value in hours.items()))
    _throughput(console, place)
    _codes(console, entries)
    _languages(console, place)
    for note, count in remarks(place):
        console.print(f"note on {counted(count, 'recording')}: {note}", highlight=False, soft_wrap=True, markup=False)
    _damaged(console, place, None if show_all else NUM_REJECTIONS)
    _rejections(console, place, None if show_all else NUM_REJECTIONS)
    _worst(console, place)


def _throughput(console: Console, place: Place) -> None:
    for name in place.join("ledger").names():
        if name.startswith("run-"):
            run = json.loads(place.join("ledger", name).read())
            console.print(
                f"run {run['finished']}: {run['audio_s_this_run'] / 3600:.3f} h at {run['x_real_time']:.1f}x real time "
                f"({run['engine']}, {run['device']}, {run['precision']}), device busy {run['device_busy_pct']:.0f}%, "
                f"padding waste {run['padding_waste_pct']:.0f}%"
            )


def _codes(console: Console, entries: list[dict[str, Any]]) -> None:
    for each in usage(iter(entries)):
        console.print(
            f"codes of {each['quantizer']}, codebook {each['codebook']}: {each['num_used']} of {each['num_entries']} entries used, "
            f"perplexity {each['perplexity']:.1f}, {each['bits_a_frame']:.2f} bits a frame"
        )


def _languages(console: Console, place: Place) -> None:
    seconds: defaultdict[str, float] = defaultdict(float)
    for _, part in ledger.each_part(place, "recordings", ["language", "speech_s"]):
        for row in part.group_by("language", use_threads=False).aggregate([("speech_s", "sum")]).to_pylist():
            seconds[row["language"] or "none"] += row["speech_s_sum"]
    if seconds:
        ordered = sorted(seconds.items(), key=lambda pair: -pair[1])
        console.print(
            "speech by language: " + ", ".join(f"{language} {value / 3600:.3f} h" for language, value in ordered)
        )


def _damaged(console: Console, place: Place, limit: int | None) -> None:
    count, shown = 0, list[dict[str, Any]]()
    for _, part in ledger.each_part(place, "recordings", ["source", "member", "error"]):
        result = part.filter(pc.is_valid(part.column("error")))
        count += result.num_rows
        shown += result.slice(0, None if limit is None else limit - len(shown)).to_pylist()
    if count:
        table = Table("recording", "what is missing", title=f"used in part: {count}", title_justify="left")
        for row in shown:
            table.add_row(_name(row), row["error"])
        console.print(table)


def _rejections(console: Console, place: Place, limit: int | None) -> None:
    by_reason: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    for _, part in ledger.each_part(place, "rejections", ["source", "member", "stage", "reason", "detail"]):
        for row in part.group_by(["stage", "reason"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
            by_reason[f"{row['stage']}: {row['reason']}"] += row["count_all"]
        shown += part.slice(0, None if limit is None else limit - len(shown)).to_pylist()
    if not by_reason:
        return
    console.print("rejected: " + ", ".join(f"{count} {reason}" for reason, count in by_reason.most_common()))
    table = Table(
        "recording",
        "stage",
        "reason",
        "detail",
        title=f"rejections ({len(shown)} of {by_reason.total()})",
        title_justify="left",
    )
    for row in shown:
        table.add_row(_name(row), row["stage"], row["reason"], row["detail"])
    console.print(table)
    console.print("run the same command with --retry-rejected to try only these again")


def _worst(console: Console, place: Place) -> None:
    rated: list[dict[str, Any]] = []
    for number, part in ledger.each_part(
        place, "segments", ["recording_id", "start_s", "stop_s", "confidence", "text"]
    ):
        known = part.filter(pc.is_valid(part.column("confidence")))
        order = np.argsort(known.column("confidence").to_numpy(), kind="stable")[:NUM_WORST_SHOWN]
        results = [{**row, "part": number} for row in known.take(order).to_pylist()]
        rated = sorted([*rated, *results], key=lambda row: row["confidence"])[:NUM_WORST_SHOWN]
    if not rated:
        return
    parts = sorted({row["part"] for row in rated})
    recordings = ledger.tables(place, "recordings", ["id", "source", "member"], parts).to_pylist()
    names = {row["id"]: _name(row) for row in recordings}
    table = Table(
        "confidence", "recording", "from s", "to s", "text", title="least confident segments", title_justify="left"
    )
    for row in rated:
        table.add_row(
            f"{row['confidence']:.2f}",
            names[row["recording_id"]],
            f"{row['start_s']:.2f}",
            f"{row['stop_s']:.2f}",
            row["text"][:100],
        )
    console.print(table)


def _name(row: dict[str, Any]) -> str:
    base = row["source"].rsplit("/", 1)[-1]
    return f"{base}!{row['member']}" if row["member"] else base
