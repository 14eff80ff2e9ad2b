"""Inputs that changed since they were planned, or are known under another name: the plan follows them, and what was made of their old content is made anew.

A size or a text beside the audio that changed is a change. A time, an ETag or a place in a shard that changed may mean
nothing: then the sound is compared with the checksum that `recordings` keeps.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from audiomill import schema
from audiomill.config.jobs import JobConfig
from audiomill.config.run import is_mine
from audiomill.errors import RecordingRejected
from audiomill.models.device import usable_cores
from audiomill.runs.open_run import Run
from audiomill.sources.entry import ENTRY_BATCH
from audiomill.sources.shards import KNOWS_SIZE
from audiomill.stages.read import Finished
from audiomill.stages.sandbox import Decoder
from audiomill.stages.spec import RunSpec
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute, on_disk, real_folders, real_path
from audiomill.watch.progress import counted

SAID = ["sidecars", "reference", "language"]
"""What is said beside a recording, and becomes a part of its rows."""
_NAMES = ["position", "size", "version", *SAID]
"""What a listing says of a recording that may change."""


def as_they_are_now(run: Run, plan: pa.Table, files: list[str]) -> pa.Table:
    """The plan with what the listing says now; parts with recordings that are not what they were are withdrawn.

    Args:
        run: whose inputs are looked at.
        plan: as it is on file.
        files: names of its files.
    """
    output, config, console = run.output, run.config, run.console
    now = run.listing.entries.table
    at = pc.index_in(plan.column("id"), value_set=now.column("id").combine_chunks())
    _tell_gone(plan.filter(pc.is_null(at)), config, console)
    at = pc.if_else(pc.is_null(now.column("reason").take(at)), at, None)
    fresh = now.select(_NAMES).take(at)
    is_here = pc.is_valid(at).to_numpy()
    pairs = zip(_rows(plan), _rows(fresh), strict=True)
    changed = [number for number, (before, after) in enumerate(pairs) if before != after and is_here[number]]
    if not changed:
        return plan
    done = {part for part in ledger.done_parts(output) if is_mine(part, config.engine.array_task)}
    numbers = pa.array([row for row in changed if plan.column("part")[row].as_py() in done], pa.int64())
    mended = _with(plan, fresh, changed)
    before, after = plan.take(numbers), mended.take(numbers)
    other = [row["id"] for row in _other(before.to_pylist(), after.to_pylist(), output, run.spec, config)]
    is_other = pc.is_in(before.column("id"), value_set=pa.array(other, pa.string()))
    _withdraw(before.filter(is_other), output, console)
    ledger.rewrite_plan(output, files, mended)
    return mended


def _tell_gone(rows: pa.Table, config: JobConfig, console: Console) -> None:
    """Planned recordings that the folders of this run do not hold any more; those of other inputs may well be elsewhere."""
    for text in config.inputs:
        folder = f"{absolute(text).rstrip('/')}/"
        gone = rows.filter(pc.starts_with(rows.column("source"), folder))
        if gone.num_rows and not config.output.quiet:
            message = f"note: {counted(gone.num_rows, 'planned recording')} no longer in {text}, the first "
            message += f"{gone.column('source')[0].as_py()}; what was made of them stays"
            console.print(message, highlight=False, soft_wrap=True)


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """A few at a time."""
    for batch in table.select(_NAMES).to_batches(max_chunksize=ENTRY_BATCH):
        yield from zip(*(batch.column(name).to_pylist() for name in _NAMES), strict=True)


def _with(plan: pa.Table, fresh: pa.Table, changed: Sequence[int]) -> pa.Table:
    is_changed = np.zeros(plan.num_rows, bool)
    is_changed[list(changed)] = True
    for name in _NAMES:
        at = schema.PLAN.get_field_index(name)
        mended = pc.if_else(pa.array(is_changed), fresh.column(name), plan.column(name))
        plan = plan.set_column(at, schema.PLAN.field(at), mended)
    return plan


def _other(
    before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], output: Place, spec: RunSpec, config: JobConfig
) -> Iterator[dict[str, Any]]:
    """The rows, of finished recordings, that no longer hold what was heard."""
    reasons: dict[str, int] = {}
    for _, table in ledger.each_part(output, "recordings", ["id", "checksum"], sorted({row["part"] for row in after})):
        reasons |= zip(table.column("id").to_pylist(), table.column("checksum").to_pylist(), strict=True)
    open_rows = []
    for old, new in zip(before, after, strict=True):
        if config.output.retry_rejected and new["id"] not in reasons:
            continue  # it is about to be tried again
        sizes = (old["size"], new["size"])
        has_other_size = old["kind"] in KNOWS_SIZE and None not in sizes and sizes[0] != sizes[1]
        if has_other_size or any(old[name] != new[name] for name in SAID):
            yield new
        else:
            open_rows.append(new)
    if not open_rows:
        return

    def checksums(rows: Sequence[dict[str, Any]]) -> list[int | None]:
        with contextlib.closing(Decoder(spec.decode, spec.segments, config.plan.storage_options)) as decoder:
            return [_checksum(decoder, row) for row in rows]

    share = -(-len(open_rows) // usable_cores())
    shares = [open_rows[start : start + share] for start in range(0, len(open_rows), share)]
    with ThreadPoolExecutor(len(shares)) as pool:
        for rows, result in zip(shares, pool.map(checksums, shares), strict=True):
            yield from (row for row, checksum in zip(rows, result, strict=True) if checksum != reasons.get(row["id"]))


def _checksum(decoder: Decoder, row: dict[str, Any]) -> int | None:
    """As `recordings.checksum`; None where the recording is rejected."""
    try:
        return next(event.ending.checksum for event in decoder.read(row) if isinstance(event, Finished))
    except RecordingRejected:
        return None


def _withdraw(rows: pa.Table, output: Place, console: Console) -> None:
    if not rows.num_rows:
        return
    parts = rows.column("part").unique().to_pylist()
    text = f"warning: {counted(rows.num_rows, 'recording')} changed since done, the first in "
    text += f"{rows.column('source')[0].as_py()}; {counted(len(parts), 'part')} made anew"
    console.print(text, highlight=False, soft_wrap=True)
    for part in parts:
        ledger.withdraw(output, part)


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
    new = {_mark(*row): row[0] for row in _names(fresh) if row[0] not in names}
    pairs = [(row[0], new[_mark(*row)]) for row in _names(plan) if row[0].startswith("/") and _mark(*row) in new]
    gone = [(before, now) for before, now in pairs if not os.path.lexists(on_disk(before))]
    if not gone:
        return []
    before, now = gone[0]
    return [
        f"{counted(len(gone), 'planned recording')} not there any more, and new ones have their names and sizes "
        f"({before}, now {now}): the new ones get rows of their own. If the corpus was moved, name another --output, "
        "or make the old path a link to the new one"
    ]


def _names(table: pa.Table) -> Sequence[tuple[str, str, int | None]]:
    return list(zip(*(table.column(name).to_pylist() for name in ("source", "member", "size")), strict=True))


def _mark(source: str, member: str, size: int | None) -> tuple[str, str, int | None]:
    return os.path.basename(source), member, size
