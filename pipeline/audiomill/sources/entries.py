"""Recordings of a listing in little memory: columns of Arrow in place of an object each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import pyarrow as pa

from audiomill import schema
from audiomill.sources.entry import Entry, Sidecar

ENTRY_BATCH = 10_000
"""Entries that are held as objects at a time."""
LISTED = pa.schema(
    [
        *(field for field in schema.PLAN if field.name not in ("part", "planned_s")),
        pa.field("is_further_track", pa.bool_()),
        pa.field("key", pa.string()),
    ]
)
"""The columns of an `Entry`, and its id."""


class Entries(Sequence[Entry]):
    """A sequence of entries that can grow, and be looked at as a table."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._tables: list[pa.Table] = []
        self._waiting: list[Entry] = []
        for entry in entries:
            self.append(entry)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        """The same object where it is one already."""
        return entries if isinstance(entries, Entries) else cls(entries)

    @classmethod
    def _of_table(cls, table: pa.Table) -> Entries:
        result = cls()
        result._tables = [table]
        return result

    def append(self, entry: Entry) -> None:
        self._waiting.append(entry)
        if len(self._waiting) == ENTRY_BATCH:
            self._pack()

    @property
    def table(self) -> pa.Table:
        """All entries, as `LISTED`."""
        self._pack()
        return pa.concat_tables(self._tables) if self._tables else LISTED.empty_table()

    def take(self, numbers: pa.Array) -> Entries:
        """Those at some places, in that order."""
        return self._of_table(self.table.take(numbers))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Entry]:
        for batch in self.table.to_batches(max_chunksize=ENTRY_BATCH):
            yield from (_entry(row) for row in batch.to_pylist())

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> Entries: ...
    def __getitem__(self, at: int | slice) -> Entry | Entries:
        table = self.table
        if isinstance(at, slice):
            return self.take(pa.array(range(*at.indices(table.num_rows)), pa.int64()))
        return _entry(table.slice(range(table.num_rows)[at], 1).to_pylist()[0])

    def _pack(self) -> None:
        if self._waiting:
            columns = {name: [getattr(entry, name) for entry in self._waiting] for name in LISTED.names}
            columns["sidecars"] = [
                [sidecar._asdict() for sidecar in entry.sidecars] if entry.sidecars else None for entry in self._waiting
            ]
            arrays = [pa.array(columns[field.name], field.type) for field in LISTED]
            self._tables.append(pa.Table.from_arrays(arrays, schema=LISTED))
            self._waiting = []


def _entry(row: dict[str, object]) -> Entry:
    sidecars = row.pop("sidecars")
    row.pop("id")
    assert sidecars is None or isinstance(sidecars, list)
    return Entry(**row, sidecars=tuple(Sidecar(**sidecar) for sidecar in sidecars) if sidecars else None)  # type: ignore[arg-type]
