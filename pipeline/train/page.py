"""The page of one training."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from audiomill.html.page import document, section, table


def training_page(report: Mapping[str, Any], charts: str) -> str:
    """Figures and curves."""
    shown = [
        (name.replace("_", " "), value) for name, value in report.items() if name not in ("dropped", "nothing_learnt")
    ]
    dropped = table(["reason", "clips"], list(report["dropped"].items())) or "<p>none</p>"
    warning = f"<p><strong>{html.escape(report['nothing_learnt'])}</strong></p>" if report["nothing_learnt"] else ""
    body = (
        section("Figures", warning + table(["", ""], shown))
        + section("Curves", charts)
        + section("Dropped clips", dropped)
    )
    return document("Training", f'<main id="overview">{body}</main>')
