"""Which split a recording goes to: whole groups of recordings, so that nothing of one is in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from audiomill.errors import InputError, UsageError
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.rows import metadata_of

BY_RECORDING = "recording"
ONLY = "train"
"""Name of the split where everything stays together."""
_NAMED = ("id", "source", "language")
"""Columns of a recording that may group it; others are looked for in its metadata."""


def shares_of(text: str | None) -> dict[str, float]:
    """`"train=0.9,dev=0.1"` -> shares by name.

    Raises:
        UsageError: not names with shares that add up to 1.
    """
    if text is None:
        return {ONLY: 1.0}
    hint = f"--split {text}: expected names and shares that add up to 1, such as train=0.9,dev=0.05,test=0.05"
    pairs = [each.strip().split("=") for each in text.split(",")]
    try:
        shares = {name.strip(): float(share) for name, share in pairs}
    except ValueError as error:
        raise UsageError(hint) from error
    is_named = all(name.isidentifier() for name in shares) and len(shares) == len(pairs)
    if not is_named or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise UsageError(hint)
    return shares


def split_of_recordings(output: Place, shares: Mapping[str, float], by: str, seed: int) -> dict[str, str]:
    """The split of every finished recording, by id.

    Groups are put in an order that the seed and their names decide, and fill the splits by their seconds.

    Args:
        output: of a run.
        shares: of the seconds, by split.
        by: recording, a column of the recordings table, or a field of its metadata.
        seed: another one, other groups.

    Raises:
        UsageError, InputError: no recording has the column, or a split stays empty.
    """
    groups: dict[str, list[tuple[str, float]]] = {}
    for _, rows in ledger.each_part(output, "recordings", ["id", "source", "language", "duration_s", "metadata"]):
        for row in rows.to_pylist():
            groups.setdefault(_group(row, by), []).append((row["id"], row["duration_s"]))
    if not groups:
        raise InputError(f"{output.url}: no finished recordings")
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    total = sum(seconds for rows in groups.values() for _, seconds in rows)
    results: dict[str, str] = {}
    before, counts = 0.0, dict.fromkeys(shares, 0)
    for name in order:
        seconds = sum(each for _, each in groups[name])
        split = _at((before + seconds / 2) / max(total, 1e-9), shares)
        before += seconds
        counts[split] += 1
        results |= {identity: split for identity, _ in groups[name]}
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise InputError(
            f"--split: nothing is left for {', '.join(empty)}: {len(groups)} group(s) by {by}, of which none falls there; "
            "take larger shares, or another --seed"
        )
    return results


def _at(position: float, shares: Mapping[str, float]) -> str:
    """The split that holds a position between 0 and 1."""
    reached = 0.0
    for name, share in shares.items():
        reached += share
        if position < reached:
            return name
    return next(reversed(list(shares)))


def _group(row: Mapping[str, Any], by: str) -> str:
    if by == BY_RECORDING:
        return str(row["id"])
    if by in _NAMED:
        return str(row[by])
    metadata = metadata_of(row)
    if by not in metadata:
        raise UsageError(
            f"--split-by {by}: recording {row['source']} has no such column; expected {BY_RECORDING}, {', '.join(_NAMED)} or a "
            f"column of its manifest ({', '.join(sorted(metadata)) or 'it brought none'})"
        )
    return str(metadata[by])
