"""What a training run tells while it goes: rows in metrics.jsonl, TensorBoard events, lines or a bar."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from audiomill.watch.progress import duration_text

METRICS_FILE = "metrics.jsonl"
NOT_DRAWN = ("update", "num_updates", "epoch", "samples")
SPOKEN_EVERY_S = 10.0
_TOLD = {"perplexity": ".1f", "accuracy": ".1%"}
"""Of what a learner tells, and how it is written."""


class Recorder:
    """Takes rows of numbers from the loop. A run that goes on drops the rows behind the state that it goes on from.

    Args:
        folder: the run's output.
        first: updates already done.
        console: for progress lines; quiet where nothing is wanted.
    """

    def __init__(self, folder: Path, first: int, console: Console) -> None:
        from tensorboardX import SummaryWriter

        self._path, self._console, self._first = folder / METRICS_FILE, console, first
        earlier_rows = [row for row in read_metrics(folder) if row["update"] <= first]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in earlier_rows))
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1 if first else None)
        self._started, self._spoken = time.monotonic(), 0.0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._events.close()
        except OSError:  # a full disk; the writer would try again, and fail, when the program ends
            self._events.file_writer.event_writer._closed = True
            if error is None:
                raise

    def __call__(self, row: dict[str, Any]) -> None:
        with self._path.open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if name not in NOT_DRAWN:
                self._events.add_scalar(name, value, row["update"])
        self._events.flush()
        now = time.monotonic()
        if "dev_wer" in row or now - self._spoken > SPOKEN_EVERY_S or row["update"] == row.get("num_updates"):
            self._spoken = now
            self._console.print(self._line(row), highlight=False, soft_wrap=True)
            if row.get("collapsed"):
                self._console.print("warning: the codebooks collapse (hardly an entry is in use)", highlight=False)

    def _line(self, row: dict[str, Any]) -> str:
        if "dev_wer" in row:
            return f"update {row['update']}, epoch {row['epoch']:.1f}: dev WER {100 * row['dev_wer']:.2f}%"
        done = row["update"] - self._first
        left = (time.monotonic() - self._started) * (row["num_updates"] - row["update"]) / max(1, done)
        extra = "".join(f", {name} {row[name]:{form}}" for name, form in _TOLD.items() if name in row)
        return (
            f"update {row['update']}/{row['num_updates']}, epoch {row['epoch']:.1f}: loss {row['loss']:.4f}{extra}, "
            f"rate {row['learning_rate']:.2e}, {row['x_real_time']:.1f}x real time, ETA {duration_text(left)}"
        )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run so far; a last line that a kill cut short is left out."""
    path = folder / METRICS_FILE
    metrics = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            metrics.append(json.loads(line))
        except ValueError:
            break
    return metrics


def nothing_learnt(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a training was of no use, for people; None where it learnt something: some words of the dev set are right, and
    the loss of the last tenth of the rows lies below that of the first."""
    wers = [row["dev_wer"] for row in rows if "dev_wer" in row]
    losses = [row["loss"] for row in rows if "loss" in row]
    if wers and min(wers) >= 1.0:
        return f"nothing was learnt: no update reached a dev WER below {100 * min(wers):.0f}%"
    tenth = max(1, len(losses) // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    if len(losses) > 1 and not last < first:
        return f"nothing was learnt: the loss went from {first:.3g} to {last:.3g}"
    return None
