"""A training that goes on learns what it began with: clips that changed meanwhile are named, and never learnt unseen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from audiomill.errors import UsageError

LEARNT, PLACED = "learnt.parquet", ("part", "offset")
"""File in the folder of states, and columns that only say where samples lie."""


def check_same_data(output: Path, train: pa.Table, dev: pa.Table | None) -> None:
    """Compares the clips with those that saved states were trained on; keeps them where there is no state.

    Args:
        output: folder of the training.
        train: its clips or sequences, as they are now.
        dev: those that it is measured on.

    Raises:
        UsageError: there is a state, and other clips than it was trained on.
    """
    state = output / "state"
    now = {"train": _rows(train), **({} if dev is None else {"dev": _rows(dev)})}
    record = state / LEARNT
    if record.exists() and any(state.glob("update-*.pt")):
        before = pq.read_table(record).to_pylist()
        for role in sorted({row["role"] for row in before} | now.keys()):
            old = [(row["id"], row["digest"]) for row in before if row["role"] == role]
            if old != now.get(role, []):
                raise UsageError(
                    f"--output {output}: the {role} clips changed since it began to train ({_first(old, now.get(role, []))}). "
                    "Bring the old ones back, take another --output, or start anew with --overwrite"
                )
        return
    state.mkdir(parents=True, exist_ok=True)
    table = [{"role": role, "id": name, "digest": digest} for role, rows in now.items() for name, digest in rows]
    pq.write_table(pa.Table.from_pylist(table), record)


def _rows(table: pa.Table) -> list[tuple[str, str]]:
    """Id and digest of each row."""
    names = [name for name in table.column_names if name not in PLACED]
    rows = []
    for number, row in enumerate(table.select(names).to_pylist()):
        digest = hashlib.sha256(repr(sorted(row.items())).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        rows.append((str(row.get("source") or row.get("id") or number), digest))
    return rows


def _first(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> str:
    """The first difference, for people."""
    before, after = dict(old), dict(new)
    gone = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    other = [name for name in before if name in after and before[name] != after[name]]
    for names, what in ((other, "has other sound or text"), (gone, "is gone"), (added, "is new")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"{names[0]}{more} {what}"
    return "their order"
