"""The page of one training, with its curves and its clips."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from audiomill.config.defaults import WINDOW_S
from audiomill.html.figures import Interval, bars, intervals, line
from audiomill.html.page import Raw, document, section, table
from audiomill.report.clip_reader import flac_uri
from audiomill.train.pseudo import selected_samples

Bins = Sequence[tuple[float, float, int]]
CURVES = (
    ("loss", "loss", "a token"),
    ("dev_wer", "dev WER", "share of words"),
    ("learning_rate", "learning rate", ""),
    ("x_real_time", "throughput", "x real time"),
    ("perplexity", "codebook perplexity", "entries"),
    ("token_perplexity", "perplexity of masked tokens", "tokens"),
    ("accuracy", "told from others", "share"),
)
"""Columns of metrics.jsonl, with their titles and units."""


def reliability_chart(bins: Bins, title: str) -> str:
    """Expected against true word error rate, a dot for each bin; on the line it is as said."""
    points = [(expected, true) for expected, true, _ in bins]
    return line(title, "expected word error rate", "true word error rate", points, diagonal=True) if points else ""


def hours_chart(kept_hours: float, dropped: Mapping[str, Mapping[str, Any]]) -> str:
    """Hours kept and dropped by reason."""
    hours = [kept_hours, *(float(each["hours"]) for each in dropped.values())]
    return bars("Kept and dropped", "hours of audio", ["kept", *dropped], hours)


def rounds_chart(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Test WER of every round with its interval; rounds that were rolled back are hollow."""
    rows = []
    for each in rounds:
        low, high = (100 * bound for bound in each["interval"])
        rows.append(Interval(str(each["round"]), low, 100 * each["wer"], high, bool(each["promoted"])))
    return intervals("Rounds", "round (-1: the model as it is, 0: trained on the labels alone)", "test WER [%]", rows)


def training_charts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Loss, WER, learning rate and throughput over updates."""
    charts = []
    for name, title, unit in CURVES:
        points = [(float(row["update"]), float(row[name])) for row in rows if row.get(name) is not None]
        if points:
            charts.append(line(title, "update", unit, points))
    return f'<div class="charts">{"".join(charts)}</div>'


def players(rows: Sequence[Mapping[str, Any]], options: dict[str, Any]) -> dict[str, Raw]:
    """An audio element by row id; of what cannot be read there is none.

    Args:
        rows: as in `selection.SELECTED`: id, source, member, kind, position, size, channel, offset, duration.
        options: for fsspec.
    """
    results = {}
    for row, pcm_T in selected_samples(rows, WINDOW_S, options):
        label = html.escape(row["text"] or "", quote=True)
        results[row["id"]] = Raw(
            f'<audio controls preload="none" aria-label="{label}" src="{flac_uri(pcm_T)}"></audio>'
        )
    return results


def training_page(report: Mapping[str, Any], charts: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Figures, curves, and what was written of some dev clips.

    Args:
        report: of the training.
        charts: drawn.
        rows: of metrics.jsonl.
    """
    shown = [
        (name.replace("_", " "), value) for name, value in report.items() if name not in ("dropped", "nothing_learnt")
    ]
    dropped = table(["reason", "clips"], list(report["dropped"].items())) or "<p>none</p>"
    warning = f"<p><strong>{html.escape(report['nothing_learnt'])}</strong></p>" if report["nothing_learnt"] else ""
    body = (
        section("Figures", warning + table(["", ""], shown))
        + section("Curves", charts)
        + _samples([row for row in rows if row.get("samples")])
        + section("Dropped clips", dropped)
    )
    return document("Training", f'<main id="overview">{body}</main>')


def _samples(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the first, the middle and the last evaluation."""
    if not rows:
        return ""
    chosen = sorted({0, (len(rows) - 1) // 2, len(rows) - 1})
    texts = zip(*(rows[at]["samples"] for at in chosen), strict=True)
    lines = [(text[0][0], *(written for _, written in text)) for text in texts]
    return section("Dev clips", table(["reference", *(f"update {rows[at]['update']}" for at in chosen)], lines))
