"""The shell of every page: one file with its style, behaviour and figures inside, which loads nothing."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

POLICY = "connect-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'"


class Raw(str):
    """HTML that is put in as it is."""


def document(title: str, body: str, style: str = "", script: str = "", facts: Mapping[str, Any] | None = None) -> str:
    """A whole file.

    Args:
        title: of the page.
        body: HTML below the heading.
        style: CSS behind that of all pages.
        script: JavaScript that the page ends with.
        facts: what the script needs; texts in it may hold anything.
    """
    common = files("audiomill.html").joinpath("page.css").read_text()
    inside = ""
    if script:
        facts_json = json.dumps(facts or {}, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        inside = f'<script type="application/json" id="facts">{facts_json}</script><script>{script}</script>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{common}{style}</style></head><body>"
        f'<a class="skip" href="#overview">skip to the content</a><h1>{html.escape(title)}</h1>{body}{inside}</body></html>'
    )


def section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def cards(values: Sequence[tuple[str, str]]) -> str:
    """The figures at the top of a page: names and values."""
    inside = "".join(f"<div>{html.escape(name)}<b>{html.escape(value)}</b></div>" for name, value in values)
    return f'<div class="figures">{inside}</div>'


def notes(sentences: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Nothing without rows. Cells are escaped unless they are `Raw`; numbers stand to the right."""
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, Raw):
        return f"<td>{value}</td>"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td class="number">{f"{value:,}" if isinstance(value, int) else f"{value:.4g}"}</td>'
    return f"<td>{html.escape('' if value is None else str(value))}</td>"
