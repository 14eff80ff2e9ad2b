"""New inputs that a plan already holds under another name: by a link, or because the corpus was moved."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pyarrow as pa

from audiomill.storage.urls import on_disk, real_folders, real_path
from audiomill.watch.progress import counted


def without_aliases(fresh: pa.Table, plan: pa.Table) -> tuple[list[int], list[str]]:
    """Rows of a listing that are no files of the plan, and what is said of the others.

    Args:
        fresh: rows of `LISTED` whose ids the plan does not have.
        plan: as it is on file.

    Returns:
        Numbers of the rows that are new, and notes.
    """
    sources = fresh.column("source").to_pylist()
    if not any(source.startswith("/") for source in sources):
        return list(range(len(sources))), []
    real = real_folders()
    planned = plan.column("source").unique().to_pylist()
    names = set(planned)
    by_real = {real_path(source, real): source for source in planned if source.startswith("/")}
    entries_left, notes, aliases = [], [], []
    for number, source in enumerate(sources):
        known = by_real.get(real_path(source, real)) if source not in names else None
        if known is None:
            entries_left.append(number)
        else:
            aliases.append((source, known))
    if aliases:
        first, known = aliases[0]
        notes.append(f"{counted(len(aliases), 'recording')} planned under another name already: {first} is {known}")
    return entries_left, notes + _moved(fresh.take(pa.array(entries_left, pa.int64())), plan, names)


def _moved(fresh: pa.Table, plan: pa.Table, names: set[str]) -> list[str]:
    """That new files have the names and sizes of planned ones that are gone."""
    new = {_mark(*row): row[0] for row in _rows(fresh) if row[0] not in names}
    pairs = [(row[0], new[_mark(*row)]) for row in _rows(plan) if row[0].startswith("/") and _mark(*row) in new]
    gone = [(before, now) for before, now in pairs if not os.path.lexists(on_disk(before))]
    if not gone:
        return []
    before, now = gone[0]
    return [
        f"{counted(len(gone), 'planned recording')} not there any more, and new ones have their names and sizes "
        f"({before}, now {now}): the new ones get rows of their own. If the corpus was moved, name another --output, "
        "or make the old path a link to the new one"
    ]


def _rows(table: pa.Table) -> Sequence[tuple[str, str, int | None]]:
    return list(zip(*(table.column(name).to_pylist() for name in ("source", "member", "size")), strict=True))


def _mark(source: str, member: str, size: int | None) -> tuple[str, str, int | None]:
    return os.path.basename(source), member, size
