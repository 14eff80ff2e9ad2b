"""The pages of training and self-training: one HTML file each, nothing beside it needed."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2rem 0 .4rem}
svg{max-width:100%;height:auto;background:#fff;border-radius:6px}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.2rem .9rem .2rem 0;text-align:left;vertical-align:top}
td.number{text-align:right;font-variant-numeric:tabular-nums}
audio{height:2rem;vertical-align:middle}
.meta{opacity:.75}
"""


def page(title: str, body: str) -> str:
    """A whole document."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>{body}</body></html>"
    )


def section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Cells are escaped unless they are already HTML (`Raw`); numbers stand to the right."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Raw(str):
    """HTML that is put into a cell as it is."""


def _cell(value: Any) -> str:
    if isinstance(value, Raw):
        return f"<td>{value}</td>"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (
            f'<td class="number">{value:,}</td>' if isinstance(value, int) else f'<td class="number">{value:.4g}</td>'
        )
    return f"<td>{html.escape('' if value is None else str(value))}</td>"


def training_page(report: Mapping[str, Any], picture: str) -> str:
    """Figures and curves of one training."""
    shown = [(name.replace("_", " "), value) for name, value in report.items() if name != "dropped"]
    dropped = table(["reason", "clips"], list(report["dropped"].items())) if report["dropped"] else "<p>none</p>"
    body = section("Figures", table(["", ""], shown)) + section("Curves", picture) + section("Dropped clips", dropped)
    return page("Training", body)
