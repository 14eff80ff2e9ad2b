"""report.html: one document with its style, behaviour, figures, charts and clips inside."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from audiomill.html.page import cards, document, table
from audiomill.html.page import notes as sentences
from audiomill.report.classes import KINDS

KEYS = "Keys: j and k go from clip to clip, space plays, Tab and the arrows move inside one, / searches, Esc goes back."


def report_document(title: str, body: str, facts: Mapping[str, Any]) -> str:
    """The whole file. `facts`: what the page's script needs."""
    room = files("audiomill.report")
    style, behaviour = (room.joinpath(name).read_text() for name in ("report.css", "report.js"))
    return document(title, body, style, behaviour, facts)


def body(
    headline: Sequence[tuple[str, str]],
    notes: Sequence[str],
    charts: Sequence[str],
    kinds: Sequence[Mapping[str, Any]],
    languages: Sequence[str],
    rejections: Sequence[Mapping[str, Any]],
    runs: Sequence[Sequence[str]],
    copies: str = "",
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
        copies: see `audiomill.report.original_and_copy`.
    """
    links = [("figures", "Figures"), ("charts", "Charts"), ("worst", "Worst clips"), ("search", "Search")]
    nav = "".join(f'<a href="#{name}">{text}</a>' for name, text in links)
    return (
        f'<main id="overview"><nav aria-label="parts of the report">{nav}</nav>'
        f'<section id="figures"><h2>Figures</h2>{cards(headline)}{sentences(notes)}{_runs(runs)}</section>'
        f'<section id="charts"><h2>Charts</h2><div class="charts">{"".join(charts)}</div></section>'
        f"{copies}{_worst(kinds)}{_rejected(rejections)}{_search(languages)}</main>"
        '<main id="recording" hidden></main>'
    )


def _runs(runs: Sequence[Sequence[str]]) -> str:
    shown = table(("run", "audio", "speed", "device", "busy", "padding"), runs)
    return f"<h3>Runs</h3>{shown}" if runs else ""


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
    names = ("name", "stage", "reason", "detail")
    shown = table(("recording", *names[1:]), [[str(row[name]) for name in names] for row in rows])
    return (
        '<section id="rejected"><h2>Rejected recordings</h2><details open>'
        f"<summary>the first {len(rows)}</summary>{shown}</details></section>"
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
