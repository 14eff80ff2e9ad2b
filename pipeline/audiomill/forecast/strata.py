"""A sample of a corpus: strata of source and duration, audio from each in proportion, the same for the same seed."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from audiomill.sources.entry import suffix
from audiomill.storage.urls import without_credentials

MIN_SPAN_S, MAX_SPAN_S = 30.0, 300.0
"""Of longer recordings a stretch is taken."""
SPANS_WANTED = 20
MAX_STRATA = 40

_Row = Mapping[str, Any]


class Drawn(NamedTuple):
    """One recording of the sample. `start_s`, `seconds`: the stretch that is taken; None: the whole of it."""

    row: _Row
    stratum: str
    start_s: float | None
    seconds: float | None


def strata_of(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    """Plan rows by source folder, format and order of magnitude of their duration; small strata are put together.

    Args:
        rows: of `schema.PLAN`; those that the plan itself rejects are left out.
    """
    usable = [row for row in rows if row["reason"] is None]
    results: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in usable:
        results[_name(row)].append(row)
    if len(results) <= MAX_STRATA:
        return dict(results)
    ordered = sorted(results, key=lambda name: (-sum(row["planned_s"] for row in results[name]), name))
    largest = {name: results[name] for name in ordered[: MAX_STRATA - 1]}
    largest["others"] = [row for name in ordered[MAX_STRATA - 1 :] for row in results[name]]
    return largest


def _name(row: _Row) -> str:
    source = without_credentials(str(row["source"]))
    folder = source.rsplit("/", 1)[0]
    seconds = max(row["planned_s"], 0.5)
    low = 4 ** math.floor(math.log(seconds, 4))
    return f"{folder} {suffix(row['member'] or source)} {low:g} to {4 * low:g} s"


def draw(strata: Mapping[str, Sequence[_Row]], wanted_s: float, seed: int) -> list[Drawn]:
    """About `wanted_s` seconds of audio, at least one recording of each stratum, in plan order.

    Recordings are taken in an order drawn from the seed and their ids; of long ones a stretch at a random place.
    """
    total = sum(row["planned_s"] for rows in strata.values() for row in rows)
    longest = min(MAX_SPAN_S, max(MIN_SPAN_S, wanted_s / SPANS_WANTED))
    drawn: list[Drawn] = []
    owed = 0.0
    for name, rows in sorted(strata.items(), key=lambda pair: (-sum(r["planned_s"] for r in pair[1]), pair[0])):
        quota = wanted_s * sum(row["planned_s"] for row in rows) / max(total, 1e-9) + owed
        taken, span = 0.0, max(longest, quota / len(rows))
        for row in sorted(rows, key=lambda row: _dice(seed, row["id"])):
            if taken and taken + min(row["planned_s"], span) / 2 > quota:
                break
            each = _stretch(row, name, span, _dice(seed + 1, row["id"]))
            drawn.append(each)
            taken += row["planned_s"] if each.seconds is None else each.seconds
        owed = min(0.0, quota - taken)
    place = {row["id"]: at for at, row in enumerate(row for rows in strata.values() for row in rows)}
    return sorted(drawn, key=lambda each: place[each.row["id"]])


def _stretch(row: _Row, stratum: str, longest: float, at: float) -> Drawn:
    known = row["span_duration_s"] or row["duration_s"]
    if (
        known is None and row["planned_s"] > 1.5 * longest
    ):  # by its size: somewhere behind the start may be behind its end
        return Drawn(row, stratum, row["span_start_s"] or 0.0, longest)
    if known is None or known <= 1.5 * longest:
        return Drawn(row, stratum, None, None)
    start = (row["span_start_s"] or 0.0) + round(at * (known - longest), 2)
    return Drawn(row, stratum, start, longest)


def _dice(seed: int, identity: str) -> float:
    """0 to 1, from a seed and a name."""
    return int.from_bytes(hashlib.sha256(f"{seed}-{identity}".encode()).digest()[:8], "little") / 2**64
