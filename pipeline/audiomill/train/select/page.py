"""report.html of a selection: what was kept, what was dropped and why, and clips of each kind to listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audiomill.html.page import document, section, table
from audiomill.train.page import hours_chart, players, reliability_chart
from audiomill.train.select.candidates import Candidates
from audiomill.train.select.rules import KEPT, Verdict, ranked


def selection_page(
    report: Mapping[str, Any],
    candidates: Candidates,
    verdicts: Sequence[Verdict],
    listen: int,
    options: dict[str, Any],
) -> str:
    """The page.

    Args:
        report: see `audiomill.train.select.selection`.
        candidates: all candidates.
        verdicts: what became of them.
        listen: clips of each reason to play.
        options: for fsspec.
    """
    chosen = _chosen(candidates, verdicts, listen)
    sounds = players([candidates.rows[at] for numbers in chosen.values() for at in numbers], options)
    body = section("Figures", table(["", ""], _figures(report)))
    body += section("Hours", hours_chart(report["hours_kept"], report["dropped"]))
    if report["calibration"]:
        calibration = report["calibration"]
        body += section(
            "Calibration",
            f"<p>Fitted on {calibration['num_segments']} labelled segments with {100 * calibration['wer']:.1f}% WER; expected calibration error "
            f"{calibration['error']:.3f} on segments that it was not fitted to.</p>"
            + reliability_chart(calibration["bins"], "labelled audio, cross-fitted"),
        )
    for reason, numbers in chosen.items():
        title = "Kept, the surest" if not reason else f"Dropped: {reason.replace('_', ' ')}"
        body += section(title, _listening(candidates, verdicts, numbers, sounds))
    return document("Selection of pseudo-labels", body)


def _figures(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    names = ("num_segments", "num_kept", "hours", "hours_kept", "expected_wer", "true_wer", "true_wer_of_all")
    shown = [(name.replace("_", " ").replace("num ", ""), report[name]) for name in names if report[name] is not None]
    return [*shown, ("teacher", ", ".join(report["teacher"]))]


def _chosen(candidates: Candidates, verdicts: Sequence[Verdict], listen: int) -> dict[str, list[int]]:
    """Numbers of the clips to play by reason: those that were nearest to being kept."""
    chosen: dict[str, list[int]] = {}
    for at in ranked(candidates.labels):
        numbers = chosen.setdefault(verdicts[at].reason, [])
        if len(numbers) < listen:
            numbers.append(at)
    return {reason: chosen[reason] for reason in sorted(chosen)}


def _listening(
    candidates: Candidates, verdicts: Sequence[Verdict], numbers: Sequence[int], sounds: Mapping[str, Any]
) -> str:
    rows = []
    for at in numbers:
        row, label = candidates.rows[at], candidates.labels[at]
        name = f"{(row['member'] or row['source']).rsplit('/', 1)[-1]} {row['offset']:.2f} s"
        why = verdicts[at].detail if verdicts[at] is not KEPT else ""
        rows.append(
            (sounds.get(row["id"], ""), row["text"], name, label.seconds, label.confidence, label.expected_wer, why)
        )
    return table(["", "text", "where", "seconds", "confidence", "expected WER", "why"], rows)
