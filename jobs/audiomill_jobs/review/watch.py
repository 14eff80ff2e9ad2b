"""audiomill watch: follows a running job by its ledger, from any machine that can read the output."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.live import Live
from rich.table import Table

from audiomill.storage.fs import Place
from audiomill.watch.follow import Follower, check_planned
from audiomill.watch.inside import Inside
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
            found = follower.look(time.time())
            console.print(_line(found))
            if once or found["is_complete"] or _is_left_open(found):
                return
            time.sleep(max(0.1, interval))
    found = follower.look(time.time())
    with Live(_picture(output, found), console=console, auto_refresh=False) as live:
        while not (found["is_complete"] or _is_left_open(found)):
            time.sleep(max(0.1, interval))
            found = follower.look(time.time())
            live.update(_picture(output, found), refresh=True)


def _line(found: dict[str, Any]) -> str:
    eta = "" if found["eta_s"] is None else f", ETA {duration_text(found['eta_s'])}"
    state = "complete" if found["is_complete"] else f"last part {_ago(found)}"
    if _is_left_open(found):
        state = "every part is done, but no run has closed the output: start it again"
    within = inside_text(Inside(**found["inside"]))
    return (
        f"{audio_text(3600 * found['done_hours'])} of {audio_text(3600 * found['planned_hours'])}, "
        f"parts {found['parts_done']}/{found['parts']}{within}, "
        f"{found['x_real_time']:.1f}x real time{eta}, {sum(found['rejections'].values())} rejected, {state}"
    )


def _is_left_open(found: dict[str, Any]) -> bool:
    """All parts done for a while, and nobody says so: whoever ran the last one was killed before that."""
    is_done = 0 < found["parts"] == found["parts_done"] and not found["is_complete"]
    return is_done and (found["last_part_s_ago"] or 0.0) > LEFT_OPEN_S


def _ago(found: dict[str, Any]) -> str:
    return "not there yet" if found["last_part_s_ago"] is None else f"{duration_text(found['last_part_s_ago'])} ago"


def _picture(output: str, found: dict[str, Any]) -> Table:
    table = Table(title=output, title_justify="left", show_header=False)
    share = found["parts_done"] / max(1, found["parts"])
    table.add_row("parts", f"{'█' * int(30 * share):░<30} {found['parts_done']}/{found['parts']}")
    audio = f"{audio_text(3600 * found['done_hours'])} of about {audio_text(3600 * found['planned_hours'])}"
    table.add_row("audio", audio + inside_text(Inside(**found["inside"])))
    table.add_row("speed", f"{found['x_real_time']:.1f}x real time")
    table.add_row("time left", "" if found["eta_s"] is None else duration_text(found["eta_s"]))
    table.add_row("last part", _ago(found))
    reasons = ", ".join(f"{count} {reason}" for reason, count in found["rejections"].items())
    table.add_row("rejected", reasons or "none")
    return table
