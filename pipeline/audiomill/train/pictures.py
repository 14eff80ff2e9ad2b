"""Charts of training, selection and self-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audiomill.html.figures import Interval, bars, intervals, line

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
