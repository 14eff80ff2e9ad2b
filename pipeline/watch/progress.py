"""What a run shows: a live line in a terminal, plain lines elsewhere, and the summary at the end."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from audiomill import schema
from audiomill.watch.meter import STAGES

PLAIN_INTERVAL_S = 10.0


def duration_text(seconds: float) -> str:
    """`3725` -> `1:02:05`."""
    whole = int(seconds + 0.5)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def size_text(num_bytes: float) -> str:
    """`1234567` -> `1.2 MB`; units are powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("the loop ends at TB")


class RunProgress:
    """Audio hours done and planned, speed, time left, rejections.

    Args:
        console: where to write (stderr).
        planned_s: audio seconds to do in this run, as planned.
        num_parts: parts to do in this run.
        quiet: show nothing.
    """

    def __init__(self, console: Console, planned_s: float, num_parts: int, quiet: bool) -> None:
        self._console, self._planned_s, self._num_parts, self._quiet = console, planned_s, num_parts, quiet
        self._done_s = self._done_planned_s = 0.0
        self._done_parts = self.num_rejections = 0
        self._started = self._printed = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> RunProgress:
        if self._console.is_terminal and not self._quiet:
            self._bar = Progress(
                TextColumn("running"),
                BarColumn(),
                TextColumn("{task.description}"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._text(), total=max(self._planned_s, 1e-9))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def part_done(self, audio_s: float, planned_s: float, num_rejections: int) -> None:
        """Counts one finished part."""
        self._done_s += audio_s
        self._done_planned_s += planned_s
        self._done_parts += 1
        self.num_rejections += num_rejections
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done_planned_s, description=self._text())
        elif not self._quiet and (
            time.monotonic() - self._printed > PLAIN_INTERVAL_S or self._done_parts == self._num_parts
        ):
            self._printed = time.monotonic()
            self._console.print(self._text(), highlight=False, soft_wrap=True)

    def _text(self) -> str:
        elapsed = time.monotonic() - self._started
        text = f"{self._done_planned_s / 3600:.2f}/{self._planned_s / 3600:.2f} h, parts {self._done_parts}/{self._num_parts}"
        if self._done_planned_s > 0:
            left = elapsed * (self._planned_s - self._done_planned_s) / self._done_planned_s
            text += f", {self._done_s / elapsed:.1f}x real time, ETA {duration_text(left)}"
        return f"{text}, {self.num_rejections} rejected"


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The end of a run, for people."""
    stages = summary["seconds"]
    order = [stage for stage in STAGES if stage in stages]
    lines = [
        f"done: {summary['num_recordings']} recordings, {summary['duration_s'] / 3600:.2f} h audio, "
        f"{summary['speech_s'] / 3600:.2f} h in {summary['num_segments']} segments, {summary['num_rejections']} rejected",
    ]
    if summary["rejections"]:
        lines.append(
            "rejected: "
            + ", ".join(
                f"{count} {reason}"
                for reason, count in sorted(summary["rejections"].items(), key=lambda pair: -pair[1])
            )
        )
    lines += [
        f"codes of {each['quantizer']}, codebook {each['codebook']}: {each['num_used']} of {each['num_entries']} entries used, "
        f"perplexity {each['perplexity']:.1f}, {each['bits_a_frame']:.2f} bits a frame ({each['num_frames']} frames)"
        for each in summary["codes_usage"]
    ]
    canary = summary["canary"]
    if canary["num_segments"]:
        lines.append(
            f"canary: {canary['num_segments']} segments computed again alone, largest difference {canary['relative_l2']:.1e}, "
            f"{canary['num_differing']} of {canary['num_compared']} codes or tokens differ"
        )
    if summary["num_halved_batches"]:
        lines.append(
            "memory: a batch did not fit and was halved; lower --batch-seconds (Whisper: --memory-fraction) to avoid that"
        )
    sizes = {name: size for name, size in summary["bytes"].items() if name not in schema.TABLES}
    if sizes:
        lines.append("tables: " + ", ".join(f"{name} {size_text(size)}" for name, size in sizes.items()))
    if summary["num_parts_this_run"]:
        lines += [
            f"this run: {summary['num_parts_this_run']} parts, {summary['audio_s_this_run'] / 3600:.2f} h in {duration_text(summary['wall_s'])} "
            f"(start-up {summary['startup_s']:.1f} s), {summary['x_real_time']:.1f}x real time",
            "stage seconds: "
            + ", ".join(f"{stage} {stages[stage]:.1f}" for stage in order)
            + f"; device busy {summary['device_busy_pct']:.0f}%, padding waste {summary['padding_waste_pct']:.0f}%",
        ]
    elif not summary["num_parts_left"]:
        lines.append("this run: nothing to do, every part was already done")
    if summary["num_parts_left"]:
        lines.append(f"this shard is done; {summary['num_parts_left']} parts of other shards are not")
    return lines
