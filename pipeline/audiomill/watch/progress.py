"""What a run shows: a live line in a terminal, plain lines elsewhere, and the summary at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from audiomill import schema
from audiomill.watch.follow import Inside, expected_left_s
from audiomill.watch.meter import STAGES
from audiomill.watch.summary import MEASURABLE_S

PLAIN_INTERVAL_S, LOOK_EVERY_S = 10.0, 2.0


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


def counted(count: float, what: str) -> str:
    """`1, "part"` -> `1 part`; `3` -> `3 parts`."""
    return f"{count:,.0f} {what}{'' if count == 1 else 's'}"


def audio_text(seconds: float) -> str:
    """Audio in seconds, minutes or hours, whichever people would say."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.2f} h"


def inside_text(inside: Inside) -> str:
    """How far the next parts are, where their workers say so; to go behind the number of parts."""
    done = f" ({inside.segments_done} of {counted(inside.segments, 'segment')} of the next)"
    return done if inside.segments else ""


class RunProgress:
    """Audio done and planned, speed, time left, rejections; also inside the parts that are being worked on.

    Args:
        console: where to write (stderr).
        planned_s: audio seconds to do in this run, as planned.
        num_parts: parts to do in this run.
        quiet: show nothing.
        look: how far the unfinished parts are; None: nobody knows.
    """

    def __init__(
        self,
        console: Console,
        planned_s: float,
        num_parts: int,
        quiet: bool,
        look: Callable[[], Inside] | None = None,
    ) -> None:
        self._console, self._planned_s, self._num_parts, self._quiet = console, planned_s, num_parts, quiet
        self._look, self._inside = look, Inside()
        self._done_s = self._done_planned_s = 0.0
        self._done_parts = self.num_rejections = 0
        self._opened = self._printed = time.time()
        self._began: float | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stop = threading.Event()

    def __enter__(self) -> RunProgress:
        if self._quiet:
            return self
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("running"),
                BarColumn(),
                TextColumn("{task.description}"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._text(), total=max(self._planned_s, 1e-9))
        if self._look is not None:
            threading.Thread(target=self._keep_looking, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._bar is not None:
            self._bar.stop()

    def part_done(self, audio_s: float, planned_s: float, num_rejections: int, began: float | None = None) -> None:
        """Counts one finished part; `began`: when the models were given it, seconds since 1970."""
        self._done_s += audio_s
        self._done_planned_s += planned_s
        self._done_parts += 1
        self.num_rejections += num_rejections
        self._began = min(self._began or began, began) if began else self._began
        self._inside = Inside()
        self._show(is_last=self._done_parts == self._num_parts)

    def _keep_looking(self) -> None:
        """In a thread: what workers have written down of their pieces."""
        assert self._look is not None
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                self._inside = self._look()
            except Exception:  # noqa: S112  (a look that fails is made again; the run itself tells what is wrong)
                continue
            if self._stop.is_set():  # nothing is said after the end
                return
            if self._inside.segments_done and self._began is None:
                self._began = time.time() - LOOK_EVERY_S
            self._show()

    def _show(self, is_last: bool = False) -> None:
        if self._bar is not None and self._task is not None:
            done = self._done_s + self._inside.audio_done_s
            self._bar.update(self._task, completed=done, total=max(self._total_s, 1e-9), description=self._text())
        elif not self._quiet and (is_last or time.time() - self._printed > PLAIN_INTERVAL_S):
            self._printed = time.time()
            self._console.print(self._text(), highlight=False, soft_wrap=True)

    @property
    def _total_s(self) -> float:
        """Audio of all parts: of those that are done as it was, of the others as planned, corrected by what came of the done
        ones: where no header states a length it is an estimate."""
        left_s = expected_left_s(self._planned_s - self._done_planned_s, self._done_s, self._done_planned_s)
        return max(self._done_s + left_s, self._done_s + self._inside.audio_done_s)

    def _text(self) -> str:
        inside, done_s, total_s = self._inside, self._done_s + self._inside.audio_done_s, self._total_s
        text = f"{audio_text(done_s)} of {audio_text(total_s)}, parts {self._done_parts}/{self._num_parts}"
        text += inside_text(inside)
        elapsed = time.time() - (self._began or self._opened)
        if done_s > 0 and self._began is not None and elapsed > MEASURABLE_S:
            left = elapsed * (total_s - done_s) / done_s
            text += f", {done_s / elapsed:.1f}x real time, ETA {duration_text(left)}"
        elif done_s == 0:
            text += f", {duration_text(time.time() - self._opened)} so far"
        return f"{text}, {self.num_rejections} rejected"


def speed_text(summary: dict[str, Any]) -> str:
    """The one speed of a run: without its start-up, where it took long enough to have one."""
    if summary["wall_s"] - summary["startup_s"] < MEASURABLE_S:
        return "too short to tell a speed"
    return f"{summary['x_real_time']:.1f}x real time"


def _parity_line(verification: Mapping[str, Any]) -> str:
    line = f"compared with transformers: input {verification['inputs_apart']:.1e}, output {verification['outputs_apart']:.1e} apart"
    return f"{line}; not compared: {verification['not_compared']}" if verification["not_compared"] else line


def _this_run(summary: dict[str, Any]) -> list[str]:
    stages = summary["seconds"]
    lines = []
    if summary["num_parts_this_run"]:
        lines += [
            f"this run: {counted(summary['num_parts_this_run'], 'part')}, {audio_text(summary['audio_s_this_run'])} in "
            f"{duration_text(summary['wall_s'])} (start-up {summary['startup_s']:.1f} s), {speed_text(summary)}",
            "stage seconds: "
            + ", ".join(f"{stage} {stages[stage]:.1f}" for stage in STAGES if stage in stages)
            + f"; device busy {summary['device_busy_pct']:.0f}%, padding waste {summary['padding_waste_pct']:.0f}%",
        ]
    elif not summary["num_parts_left"]:
        lines.append("this run: nothing to do, every part was already done")
    if summary["num_parts_left"]:
        lines.append(f"this shard is done; {summary['num_parts_left']} parts of other shards are not")
    return lines


def _second_model(summary: Mapping[str, Any]) -> str:
    share = summary["second_model_s"] / max(summary["seconds"].get("infer", 0.0), 1e-9)
    return (
        f"second model: {summary['num_redone']} of {counted(summary['num_segments'], 'segment')} written again, "
        f"{100 * min(1.0, share):.0f}% of the models' time"
    )


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The end of a run, for people."""
    lines = [
        f"done: {counted(summary['num_recordings'], 'recording')}, {audio_text(summary['duration_s'])} of audio, "
        f"{audio_text(summary['speech_s'])} in {counted(summary['num_segments'], 'segment')}, "
        f"{summary['num_rejections']} rejected",
    ]
    if summary["rejections"]:
        lines.append(
            "rejected: "
            + ", ".join(
                f"{count} {reason}"
                for reason, count in sorted(summary["rejections"].items(), key=lambda pair: -pair[1])
            )
        )
    if summary["only_language"] is not None:
        lines.append(
            f"doubtful: the model does not trust its text of {summary['num_doubtful']} of {counted(summary['num_segments'], 'segment')} "
            f"(segments.failed_checks); it knows {summary['only_language']} alone, other languages need a multilingual model"
        )
    if summary["num_special"]:
        lines.append(
            f"{summary['num_special']} of {counted(summary['num_segments'], 'segment')} have special tokens such as <unk> in their "
            "text: sounds that the model has no letter for; --drop-special-tokens leaves them out"
        )
    lines += [
        f"codes of {each['quantizer']}, codebook {each['codebook']}: {each['num_used']} of {each['num_entries']} entries used, "
        f"perplexity {each['perplexity']:.1f}, {each['bits_a_frame']:.2f} bits a frame ({each['num_frames']} frames)"
        for each in summary["codes_usage"]
    ]
    verification = summary["verification"]
    if verification["num_segments"]:
        lines.append(
            f"verification: {counted(verification['num_segments'], 'segment')} computed again alone, largest difference {verification['relative_l2']:.1e}, "
            f"{verification['num_differing']} of {verification['num_compared']} codes or tokens differ"
        )
        lines.append(_parity_line(verification))
    if summary["num_halved_batches"]:
        lines.append(
            "memory: a batch did not fit and was halved; lower --batch-seconds (Whisper: --memory-fraction) to avoid that"
        )
    if summary["second_model_s"]:
        lines.append(_second_model(summary))
    sizes = {name: size for name, size in summary["bytes"].items() if name not in schema.TABLES}
    if sizes:
        lines.append("tables: " + ", ".join(f"{name} {size_text(size)}" for name, size in sizes.items()))
    return lines + _this_run(summary)
