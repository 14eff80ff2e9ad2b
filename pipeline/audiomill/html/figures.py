"""Charts as SVG that takes its colours from the page: titled, with units, and with a table as text alternative."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, ROW, LEFT, RIGHT = 560, 24, 150, 70
HEIGHT, BOTTOM, TOP, MARGIN = 230, 42, 26, 52
MAX_LABELS = 8


def format_number(value: float) -> str:
    """A number as people read it."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def bars(title: str, unit: str, labels: Sequence[str], values: Sequence[float]) -> str:
    """Horizontal bars, one a label."""
    most = max([*values, 1e-12])
    parts = []
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        y, length = 4 + number * ROW, (WIDTH - LEFT - RIGHT) * value / most
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{html.escape(label[:22])}</text>'
            f'<rect class="bar" x="{LEFT}" y="{y + 3}" width="{max(length, 1):.1f}" height="{ROW - 8}" rx="2"/>'
            f'<text x="{LEFT + length + 6:.1f}" y="{y + 15}">{format_number(value)}</text>'
        )
    return _figure(title, unit, 12 + len(labels) * ROW, "".join(parts), list(zip(labels, values, strict=True)))


def histogram(title: str, unit: str, edges: Sequence[float], counts: Sequence[int], what: str) -> str:
    """Upright bars between `edges`; `what` is counted."""
    most, wide = max([*counts, 1]), (WIDTH - MARGIN - 10) / len(counts)
    parts = [_axis(most, what)]
    for number, count in enumerate(counts):
        tall = (HEIGHT - BOTTOM - TOP) * count / most
        x, y = MARGIN + number * wide, HEIGHT - BOTTOM - tall
        parts.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{y:.1f}" width="{wide - 2:.1f}" height="{tall:.1f}"/>' * (count > 0)
        )
    step = -(-len(edges) // MAX_LABELS)
    for number in range(0, len(edges), step):
        parts.append(_tick(MARGIN + number * wide, format_number(edges[number])))
    rows = [
        (f"{format_number(low)} to {format_number(high)}", n)
        for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    return _figure(title, unit, HEIGHT, "".join(parts) + _unit(unit), rows)


def line(title: str, unit: str, what: str, points: Sequence[tuple[float, float]], diagonal: bool = False) -> str:
    """A line through points; `unit` of x, `what` is y. With a diagonal both axes go from 0 to 1."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right, top = (0.0, 1.0, 1.0) if diagonal else (min(xs), max(max(xs), min(xs) + 1e-9), max([*ys, 1e-12]))

    def at(x: float, y: float) -> str:
        across = MARGIN + (WIDTH - MARGIN - 16) * (x - left) / (right - left)
        return f"{across:.1f},{HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * y / top:.1f}"

    path = " ".join(at(x, y) for x, y in points)
    parts = [_axis(top, what), f'<polyline class="line" points="{path}"/>']
    parts += [f'<circle class="dot" cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3"/>' for p in path.split(" ")]
    if diagonal:
        parts.append(f'<polyline class="guide" points="{at(0, 0)} {at(1, 1)}"/>')
    for step in range(5):
        value = left + (right - left) * step / 4
        parts.append(_tick(float(at(value, 0).split(",")[0]), format_number(round(value, 3))))
    return _figure(title, unit, HEIGHT, "".join(parts) + _unit(unit), [(format_number(x), y) for x, y in points])


class Interval(NamedTuple):
    """A value between two bounds; hollow where it did not count."""

    label: str
    low: float
    value: float
    high: float
    is_filled: bool


def intervals(title: str, unit: str, what: str, rows: Sequence[Interval]) -> str:
    """A dot with its interval for each row, from left to right; `unit` names the rows, `what` is their value."""
    top, wide = max([*(row.high for row in rows), 1e-12]), (WIDTH - MARGIN - 16) / max(1, len(rows))

    def height(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top

    parts = [_axis(top, what)]
    for number, row in enumerate(rows):
        x = MARGIN + (number + 0.5) * wide
        ends = f'y1="{height(row.low):.1f}" y2="{height(row.high):.1f}"'
        hollow = "" if row.is_filled else ' fill-opacity="0"'
        parts.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" {ends}/>')
        parts.append(f'<circle class="dot line" cx="{x:.1f}" cy="{height(row.value):.1f}" r="4"{hollow}/>')
        parts.append(_tick(x, html.escape(row.label)))
    return _figure(title, unit, HEIGHT, "".join(parts) + _unit(unit), [(row.label, row.value) for row in rows])


def _axis(most: float, what: str) -> str:
    axis = f'<text x="4" y="12" class="what">{html.escape(what)}</text>'
    for share in (0.0, 0.5, 1.0):
        y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share
        axis += f'<line class="grid" x1="{MARGIN}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
        axis += f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{format_number(most * share)}</text>'
    return axis


def _tick(x: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{text}</text>'


def _unit(unit: str) -> str:
    return f'<text x="{(WIDTH + MARGIN) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(unit)}</text>'


def _figure(title: str, unit: str, height: int, body: str, rows: Sequence[tuple[str, float]]) -> str:
    """The chart with its heading and, folded, its numbers."""
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{format_number(value)}</td></tr>" for name, value in rows)
    alternative = "; ".join(f"{name}: {format_number(value)}" for name, value in rows[:40])
    return (
        f"<figure><figcaption>{html.escape(title)} <small>{html.escape(unit)}</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(f"{title}, {unit}. {alternative}")}">'
        f"<title>{html.escape(title)}</title>{body}</svg>"
        f"<details><summary>as a table</summary><table>{cells}</table></details></figure>"
    )
