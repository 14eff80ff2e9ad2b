"""audiomill watch: follows a running job by its ledger, from any machine that can read the output."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.live import Live
from rich.table import Table

from audiomill.storage.fs import Place
from audiomill.watch.follow import Follower, Inside, check_planned
from audiomill.watch.journal import PlainConsole
from audiomill.watch.progress import audio_text, duration_text, inside_text
from audiomill_jobs.options import JsonMapping, WithExamples

LEFT_OPEN_S = 120.0
EXAMPLES = """\
Examples:
  audiomill watch out/                       until the job is complete
  audiomill watch s3://results/run1 --once   one look, for scripts
"""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("output", metavar="OUTPUT")
@click.option("--once", is_flag=True, help="Look once and end.")
@click.option("--interval", type=float, default=5.0, show_default=True, metavar="S", help="Seconds between two looks.")
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def watch(output: str, once: bool, interval: float, storage_options: dict[str, Any] | None) -> None:
    """Follow a running job: hours and parts done, speed, time left, rejections.

    Reads only the plan and the ledger in OUTPUT, so it works from anywhere that can read them, and does not disturb
    the job. Ends when the job is complete.
    """
    place = Place(output, storage_options or {})
    check_planned(place)
    console, follower = PlainConsole(), Follower(place)
    if once or not console.is_terminal:
        while True:
            result = follower.look(time.time())
            console.print(_line(result))
            if once or result["is_complete"] or _is_left_open(result):
                return
            time.sleep(max(0.1, interval))
    result = follower.look(time.time())
    with Live(_picture(output, result), console=console, auto_refresh=False) as live:
        while not (result["is_complete"] or _is_left_open(result)):
            time.sleep(max(0.1, interval))
            result = follower.look(time.time())
            live.update(_picture(output, result), refresh=True)


def _line(result: dict[str, Any]) -> str:
    eta = "" if result["eta_s"] is None else f", ETA {duration_text(result['eta_s'])}"
    state = "complete" if result["is_complete"] else f"last part {_ago(result)}"
    if _is_left_open(result):
        state = "every part is done, but no run has closed the output: start it again"
    within = inside_text(Inside(**result["inside"]))
    return (
        f"{audio_text(3600 * result['done_hours'])} of {audio_text(3600 * result['planned_hours'])}, "
        f"parts {result['parts_done']}/{result['parts']}{within}, "
        f"{result['x_real_time']:.1f}x real time{eta}, {sum(result['rejections'].values())} rejected, {state}"
    )


def _is_left_open(result: dict[str, Any]) -> bool:
    """All parts done for a while, and nobody says so: whoever ran the last one was killed before that."""
    is_done = 0 < result["parts"] == result["parts_done"] and not result["is_complete"]
    return is_done and (result["last_part_s_ago"] or 0.0) > LEFT_OPEN_S


def _ago(result: dict[str, Any]) -> str:
    return "not there yet" if result["last_part_s_ago"] is None else f"{duration_text(result['last_part_s_ago'])} ago"


def _picture(output: str, result: dict[str, Any]) -> Table:
    table = Table(title=output, title_justify="left", show_header=False)
    share = result["parts_done"] / max(1, result["parts"])
    table.add_row("parts", f"{'█' * int(30 * share):░<30} {result['parts_done']}/{result['parts']}")
    audio = f"{audio_text(3600 * result['done_hours'])} of about {audio_text(3600 * result['planned_hours'])}"
    table.add_row("audio", audio + inside_text(Inside(**result["inside"])))
    table.add_row("speed", f"{result['x_real_time']:.1f}x real time")
    table.add_row("time left", "" if result["eta_s"] is None else duration_text(result["eta_s"]))
    table.add_row("last part", _ago(result))
    reasons = ", ".join(f"{count} {reason}" for reason, count in result["rejections"].items())
    table.add_row("rejected", reasons or "none")
    return table
