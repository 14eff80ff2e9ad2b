"""The page of one training."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from audiomill.html.page import document, section, table


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
