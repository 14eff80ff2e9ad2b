"""report.html: one document with its style, behaviour, figures, charts and clips inside."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from audiomill.report.classes import KINDS

KEYS = "Keys: j and k go from clip to clip, space plays, Tab and the arrows move inside one, / searches, Esc goes back."


def document(title: str, body: str, facts: Mapping[str, Any]) -> str:
    """The whole file. `facts`: what the page's script needs; texts in it may hold anything."""
    room = files("audiomill.report")
    style, behaviour = (room.joinpath(name).read_text() for name in ("report.css", "report.js"))
    inside = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = "connect-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body>"
        f'<a class="skip" href="#overview">skip to the report</a><h1>{html.escape(title)}</h1>{body}'
        f'<script type="application/json" id="facts">{inside}</script><script>{behaviour}</script></body></html>'
    )


def body(
    headline: Sequence[tuple[str, str]],
    notes: Sequence[str],
    charts: Sequence[str],
    kinds: Sequence[Mapping[str, Any]],
    languages: Sequence[str],
    rejections: Sequence[Mapping[str, Any]],
    runs: Sequence[Sequence[str]],
) -> str:
    """What stands in the document before any script has run.

    Args:
        headline: names and values of the figures at the top.
        notes: sentences under them.
        charts: see `audiomill.html.figures`.
        kinds: name, title, meaning and count of the failures that have clips.
        languages: to choose from in the search.
        rejections: some rows of the rejections table.
        runs: a row for each run that worked on the output.
    """
    links = [("figures", "Figures"), ("charts", "Charts"), ("worst", "Worst clips"), ("search", "Search")]
    nav = "".join(f'<a href="#{name}">{text}</a>' for name, text in links)
    cards = "".join(f"<div>{html.escape(name)}<b>{html.escape(value)}</b></div>" for name, value in headline)
    told = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return (
        f'<main id="overview"><nav aria-label="parts of the report">{nav}</nav>'
        f'<section id="figures"><h2>Figures</h2><div class="figures">{cards}</div>{told}{_runs(runs)}</section>'
        f'<section id="charts"><h2>Charts</h2><div class="charts">{"".join(charts)}</div></section>'
        f"{_worst(kinds)}{_rejected(rejections)}{_search(languages)}</main>"
        '<main id="recording" hidden></main>'
    )


def _runs(runs: Sequence[Sequence[str]]) -> str:
    if not runs:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("run", "audio", "speed", "device", "busy", "padding"))
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in runs)
    return f'<h3>Runs</h3><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _worst(kinds: Sequence[Mapping[str, Any]]) -> str:
    options = "".join(f'<option value="{kind["name"]}">{html.escape(kind["title"])}</option>' for kind in kinds)
    choice = f'<p><label>Kind <select id="clip-kind"><option value="">all</option>{options}</select></label></p>'
    sections = "".join(
        f'<section id="section-{kind["name"]}"><h3>{html.escape(kind["title"])} '
        f"<small>{kind['count']:,} segments; {html.escape(kind['meaning'])}</small></h3>"
        f'<div id="kind-{kind["name"]}"></div></section>'
        for kind in kinds
    )
    nothing = "<p>No segment failed a check: there is nothing that should be heard first.</p>"
    inside = f'{choice}<p class="soft">{KEYS}</p>{sections}' if kinds else nothing
    return f'<section id="worst"><h2>The worst clips to listen to</h2>{inside}</section>'


def _rejected(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    cells = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in ("name", "stage", "reason", "detail"))
        + "</tr>"
        for row in rows
    )
    head = "<tr><th>recording</th><th>stage</th><th>reason</th><th>detail</th></tr>"
    return (
        f'<section id="rejected"><h2>Rejected recordings</h2><details open><summary>the first {len(rows)}</summary>'
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{cells}</tbody></table></div></details></section>'
    )


def _search(languages: Sequence[str]) -> str:
    def choice(name: str, label: str, options: Sequence[tuple[str, str]]) -> str:
        inside = "".join(
            f'<option value="{html.escape(value)}">{html.escape(text)}</option>' for value, text in options
        )
        return f'<label>{label}<select id="{name}">{inside}</select></label>'

    kinds = [("", "any"), *((kind.name, kind.title) for kind in KINDS), ("damaged", "Damaged")]
    orders = [("", "as planned"), ("confidence", "least confident"), ("wer", "highest WER"), ("length", "longest")]
    return (
        '<section id="search"><h2>Search</h2><form class="find" role="search" onsubmit="return false">'
        '<label class="wide">words of a transcript or a name<input type="search" id="query" autocomplete="off"></label>'
        f"{choice('language', 'language', [('', 'any'), *((code, code) for code in languages)])}"
        f"{choice('kind', 'kind of failure', kinds)}{choice('order', 'order', orders)}</form>"
        '<p id="found" role="status" class="soft"></p><ul id="hits" class="hits"></ul>'
        '<button type="button" id="more" hidden>more</button></section>'
    )
