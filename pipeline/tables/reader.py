"""Outputs for training code: (id, array) pairs of embeddings or codes, by index, by slice or as a stream.

Only the columns and row groups that are needed are read. F frames, D width, K codebooks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from audiomill.errors import InputError
from audiomill.storage.fs import Place
from audiomill.storage.ledger import done_parts
from audiomill.storage.part_files import part_name
from audiomill.tables.output import Reading
from audiomill.tables.outputs import OUTPUTS

Sample = tuple[str, NDArray[Any]]
OPEN_ROW_GROUPS = 4
"""Row groups kept in memory for access by index: neighbours in a slice cost one read."""


def open_output(
    url: str,
    table: str | None = None,
    *,
    storage_options: dict[str, Any] | None = None,
    **only: Any,
) -> OutputDataset:
    """Opens the embeddings or codes of an output.

    Args:
        url: the `--output` of a run, local or remote.
        table: embeddings or codes; may be left out where there is only one of them.
        storage_options: for fsspec.
        only: rows to take, by `model`, `layer` and `pool`, or by `model`, `quantizer` and `codebook`. Must be given
            where an output holds several.

    Returns:
        A torch `Dataset` of (segment id, array): values_FD (float32 from int8 with scale), values_D where pooled,
        codes_F of one codebook, or codes_KF where a quantizer has several.

    Raises:
        InputError: no finished rows, several kinds of rows and no choice, or a choice that is not there.
    """
    place = Place(url, storage_options or {})
    readable = {output.name: output.reading for output in OUTPUTS if output.reading is not None}
    tables = [name for name in readable if place.join(name).names()]
    if table is None and len(tables) > 1:
        raise InputError(f"{url}: holds {' and '.join(tables)}; say which with table=")
    name = table or (tables[0] if tables else next(iter(readable)))
    if name not in tables:
        raise InputError(f"{url}: no finished {name}; expected the --output of an embed, encode or run job")
    reading = readable[name]
    for key, value in only.items():
        if key not in reading.choose_by:
            raise InputError(f"{name} are chosen by {', '.join(reading.choose_by)}, not by {key}")
        kind = reading.choose_by[key]
        if not isinstance(value, kind):
            raise InputError(f"{key}={value!r}: expected {'a number' if kind is int else 'text'}")
    return OutputDataset(place, name, reading, only)


class OutputDataset(Dataset[Sample]):
    """See `open_output`. Also takes slices, and iterates in file order, one row group at a time."""

    def __init__(self, place: Place, table: str, reading: Reading, only: dict[str, Any]) -> None:
        self._reading, self._only = reading, only
        self._places = [place.join(table, part_name(part) + ".parquet") for part in sorted(done_parts(place))]
        self._groups: list[tuple[int, int]] = []
        self._rows: list[NDArray[np.int64]] = []
        self.ids: list[str] = []
        self._index()
        self._starts = np.concatenate([[0], np.cumsum([len(rows) for rows in self._rows])]).tolist()
        self._cached = lru_cache(OPEN_ROW_GROUPS)(self._arrays)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        """One sample, or a list of samples for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"index {index} of {len(self)} rows")
        group = bisect_right(self._starts, number) - 1
        return self.ids[number], self._cached(group)[number - self._starts[group]]

    def __iter__(self) -> Iterator[Sample]:
        for group in range(len(self._groups)):
            yield from self._samples(group)

    def __getstate__(self) -> dict[str, Any]:
        """For DataLoader workers: without what was cached."""
        return {name: value for name, value in self.__dict__.items() if name != "_cached"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cached = lru_cache(OPEN_ROW_GROUPS)(self._arrays)

    def stream(self, shuffle_seed: int | None = None) -> StreamedOutput:
        """The same samples as a torch `IterableDataset`: each DataLoader worker reads row groups of its own.

        Args:
            shuffle_seed: row groups, and samples inside one, come in an order drawn from it; None: file order.
        """
        return StreamedOutput(self, shuffle_seed)

    def num_row_groups(self) -> int:
        return len(self._groups)

    def _samples(self, group: int) -> Iterator[Sample]:
        first, last = self._starts[group : group + 2]
        yield from zip(self.ids[first:last], self._arrays(group), strict=True)

    def _index(self) -> None:
        """Reads ids and the columns to choose by, not the values."""
        kinds: set[tuple[Any, ...]] = set()
        there: set[tuple[Any, ...]] = set()
        choose_by, key = list(self._reading.choose_by), list(self._reading.one_kind)
        for number, place in enumerate(self._places):
            file = _opened(place)
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=["segment_id", *choose_by])
                mask = np.ones(rows.num_rows, bool)
                for name, value in self._only.items():
                    mask &= pc.equal(rows.column(name), pa.scalar(value, rows.schema.field(name).type)).to_numpy()
                chosen = rows.filter(pa.array(mask))
                there |= {
                    tuple(row.values()) for row in rows.select(choose_by).group_by(choose_by).aggregate([]).to_pylist()
                }
                kinds |= {tuple(row.values()) for row in chosen.select(key).group_by(key).aggregate([]).to_pylist()}
                self._add(number, group, np.flatnonzero(mask), chosen)
        if not self.ids:
            shown = "; ".join(str(dict(zip(choose_by, kind, strict=True))) for kind in sorted(there)[:8])
            raise InputError(f"no rows for {self._only or 'this output'}; there are: {shown or 'none'}")
        if len(kinds) > 1:
            shown = "; ".join(str(dict(zip(choose_by, kind, strict=False))) for kind in sorted(kinds)[:8])
            raise InputError(f"the output holds several kinds of rows; choose one of: {shown}")

    def _add(self, number: int, group: int, rows: NDArray[np.int64], chosen: pa.Table) -> None:
        """Rows of one segment lie side by side; where they make one sample, its first row stands for it."""
        ids = chosen.column("segment_id").to_pylist()
        starts = [i for i, each in enumerate(ids) if i == 0 or each != ids[i - 1] or not self._reading.joins_rows]
        self._groups.append((number, group))
        self._rows.append(np.asarray([rows[i] for i in starts], np.int64))
        self.ids += [ids[i] for i in starts]

    def _arrays(self, group: int) -> list[NDArray[Any]]:
        """Arrays of a row group's samples."""
        number, at = self._groups[group]
        rows = _opened(self._places[number]).read_row_group(at, columns=list(self._reading.columns))
        return [self._reading.values(rows, row, self._only) for row in self._rows[group].tolist()]


class StreamedOutput(IterableDataset[Sample]):
    """See `OutputDataset.stream`."""

    def __init__(self, dataset: OutputDataset, shuffle_seed: int | None) -> None:
        self._dataset, self._seed = dataset, shuffle_seed

    def __iter__(self) -> Iterator[Sample]:
        groups = np.arange(self._dataset.num_row_groups())
        random = None if self._seed is None else np.random.default_rng(self._seed)
        if random is not None:
            groups = random.permutation(groups)
        worker = get_worker_info()
        mine = groups if worker is None else groups[worker.id :: worker.num_workers]
        for group in mine.tolist():
            samples = list(self._dataset._samples(group))
            order = (
                range(len(samples))
                if random is None
                else np.random.default_rng([self._seed or 0, group]).permutation(len(samples))
            )
            for index in order:
                yield samples[index]


def _opened(place: Place) -> pq.ParquetFile:
    return pq.ParquetFile(place.path, memory_map=True) if place.is_local else pq.ParquetFile(place.open())
