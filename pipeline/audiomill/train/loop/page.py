"""report.html of a self-training loop: WER by round, what was kept, what changed, calibration, the worst clips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from audiomill.html.page import document, section, table
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.text.wer import score_pair
from audiomill.train.page import hours_chart, players, reliability_chart, rounds_chart

NUM_WORST, NUM_CHANGES = 10, 10
_Metrics = dict[str, Any]


def write_loop_page(root: Path, rounds: Sequence[_Metrics], options: dict[str, Any]) -> None:
    """Writes the page of the rounds so far."""
    body = section("Test WER by round", rounds_chart(rounds) + table(_HEADER, [_row(each) for each in rounds]))
    for before, after in pairwise(each for each in rounds if each["round"] >= 0):
        body += _round_section(root, before, after, options)
    best = next(each for each in reversed(rounds) if each["promoted"])
    body += section(
        f"Worst clips of the test set, round {best['round']}", _worst(root / f"round-{best['round']}" / "test", options)
    )
    (root / "report.html").write_text(document("Self-training", body))


_HEADER = (
    "round",
    "test WER %",
    "95% interval",
    "teacher",
    "p of luck",
    "decision",
    "kept labels",
    "kept hours",
    "expected WER %",
    "true WER %",
)


def _row(metrics: _Metrics) -> list[Any]:
    selection = metrics["selection"]
    low, high = (100 * each for each in metrics["interval"])
    return [
        metrics["round"],
        100 * metrics["wer"],
        f"{low:.2f} to {high:.2f}",
        _taught_by(metrics),
        "" if metrics["teacher"] is None else metrics["probability"],
        "promoted" if metrics["promoted"] else "rolled back",
        selection.get("num_kept", ""),
        selection.get("hours_kept", ""),
        "" if selection.get("expected_wer") is None else 100 * selection["expected_wer"],
        "" if selection.get("true_wer") is None else 100 * selection["true_wer"],
    ]


def _taught_by(metrics: _Metrics) -> str:
    if metrics["round"] > 0:
        return f"round {metrics['teacher']}"
    return "labels alone" if metrics["training"] else "none: the model as it is"


def _round_section(root: Path, before: _Metrics, after: _Metrics, options: dict[str, Any]) -> str:
    number, selection = after["round"], after["selection"]
    body = "<h3>Hours kept and dropped</h3>" + hours_chart(selection["hours_kept"], selection["dropped"])
    if selection["calibration"]:
        body += "<h3>Calibration on the dev set</h3>" + reliability_chart(
            selection["calibration"]["bins"], "expected and true WER"
        )
    previous = root / f"round-{before['round']}" / "labels"
    if previous.exists():
        body += "<h3>Labels that changed</h3>" + _changes(previous, root / f"round-{number}" / "labels", options)
    return section(f"Round {number}", body)


def _changes(before: Path, after: Path, options: dict[str, Any]) -> str:
    """How many texts changed from one round's labels to the next's, with examples."""
    texts = [
        {
            row["id"]: row["text"] or ""
            for row in ledger.tables(Place(str(each), options), "segments", ["id", "text"]).to_pylist()
        }
        for each in (before, after)
    ]
    shared = sorted(texts[0].keys() & texts[1].keys())
    changed = [name for name in shared if texts[0][name] != texts[1][name]]
    share = 100 * len(changed) / max(1, len(shared))
    rows = [(name, texts[0][name], texts[1][name]) for name in changed[:NUM_CHANGES]]
    return f"<p>{len(changed)} of {len(shared)} ({share:.1f}%)</p>" + table(["segment", "before", "now"], rows)


def _worst(output: Path, options: dict[str, Any]) -> str:
    """Recordings with most word errors, to listen to."""
    place = Place(str(output), options)
    plan = ledger.load_plan(place)
    assert plan is not None, "a finished output has a plan"
    where = {row["id"]: row for row in plan.select(["id", "kind", "position", "size"]).to_pylist()}
    results = []
    for row in ledger.tables(place, "recordings").to_pylist():
        if row["reference"] is not None:
            errors = score_pair(row["reference"], row["text"], row["language"])[0]
            if errors.rate > 0:
                results.append((errors.rate, row))
    results.sort(key=lambda each: (-each[0], each[1]["id"]))
    chosen = [
        {
            **{name: row[name] for name in ("id", "source", "member", "text")},
            **{name: where[row["id"]][name] for name in ("kind", "position", "size")},
            "channel": None,
            "offset": row["span_start_s"],
            "duration": row["duration_s"],
        }
        for _, row in results[:NUM_WORST]
    ]
    sounds = players(chosen, options)
    rows = [
        (
            sounds.get(row["id"], ""),
            (row["member"] or row["source"]).rsplit("/", 1)[-1],
            row["reference"],
            row["text"],
            100 * rate,
        )
        for rate, row in results[:NUM_WORST]
    ]
    return table(["", "recording", "reference", "transcript", "WER %"], rows) if rows else "<p>none has an error</p>"
