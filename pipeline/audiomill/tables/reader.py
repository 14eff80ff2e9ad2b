"""Outputs for training code: (id, array) pairs of embeddings or codes, by index, by slice or as a stream.

Only the columns and row groups that are needed are read, and what is kept of a sample is its row number: four bytes.
F frames, D width, K codebooks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from audiomill import schema
from audiomill.errors import InputError
from audiomill.storage.fs import Place
from audiomill.storage.ledger import done_parts
from audiomill.storage.part_files import in_schema, part_name, read_table
from audiomill.tables.output import Reading
from audiomill.tables.outputs import OUTPUTS
from audiomill.tables.voice_tables import VOICE, voices_of


class CollatedBatch(NamedTuple):
    """`values`: B first, zeros behind each sample's end; `mask_BF`: True where a frame is real, None for pooled vectors,
    which have no frames; `columns`: what was asked for by `columns=`, a list each."""

    ids: list[str]
    values: torch.Tensor
    mask_BF: torch.Tensor | None
    columns: dict[str, list[Any]]


def collated(samples: Sequence[Any], time_axis: int | None) -> CollatedBatch:
    """Pads and stacks samples of `audiomill.open_output`.

    Args:
        samples: (id, array), or (id, array, columns).
        time_axis: along which arrays differ in length; None: they do not.
    """
    ids, arrays = [sample[0] for sample in samples], [sample[1] for sample in samples]
    metadata = [sample[2] if len(sample) > 2 else {} for sample in samples]
    columns = {name: [each[name] for each in metadata] for name in metadata[0]} if metadata else {}
    if time_axis is None:
        return CollatedBatch(ids, torch.from_numpy(_stackable(np.stack(arrays))), None, columns)
    lengths = [array.shape[time_axis] for array in arrays]
    padded = []
    for array, length in zip(arrays, lengths, strict=True):
        widths = [(0, 0)] * array.ndim
        widths[time_axis] = (0, max(lengths) - length)
        padded.append(np.pad(array, widths))
    mask_BF = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return CollatedBatch(ids, torch.from_numpy(_stackable(np.stack(padded))), mask_BF, columns)


def _stackable(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """torch has few operations on unsigned 16 bits: codes become 32-bit integers."""
    return values.astype(np.int32) if values.dtype == np.uint16 else values


_Sample = tuple[Any, ...]
"""Segment id and array; then a dict, where columns of other tables are asked for."""
OPEN_ROW_GROUPS = 4
"""Row groups kept in memory for access by index: neighbours in a slice cost one read."""
_DTYPES = {"float16": np.float16, "float32": np.float32}


def opened(
    url: str,
    table: str | None,
    *,
    columns: Sequence[str],
    dtype: str | None,
    storage_options: dict[str, Any] | None,
    only: dict[str, Any],
) -> OutputDataset:
    """See `audiomill.open_output`."""
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
    known = [*schema.SEGMENTS.names, *schema.RECORDINGS.names, *VOICE]
    for column in columns:
        if column not in known:
            raise InputError(
                f"columns: no {column!r} in segments or recordings; expected some of {', '.join(dict.fromkeys(known))}"
            )
    if dtype is not None and dtype not in _DTYPES:
        raise InputError(f"dtype={dtype!r}: expected one of {', '.join(_DTYPES)}")
    return OutputDataset(place, name, reading, only, tuple(columns), dtype)


class OutputDataset(Dataset[_Sample]):
    """See `audiomill.open_output`. Also takes slices, and iterates in file order, one row group at a time."""

    def __init__(
        self,
        place: Place,
        table: str,
        reading: Reading,
        only: dict[str, Any],
        columns: tuple[str, ...] = (),
        dtype: str | None = None,
    ) -> None:
        self._place, self._table, self._reading, self._only = place, table, reading, only
        self._columns, self._dtype = columns, dtype
        self._parts = sorted(done_parts(place))
        self._groups: list[tuple[int, int]] = []
        self._rows: list[NDArray[np.int32]] = []
        self._index()
        self._starts = np.concatenate([[0], np.cumsum([len(rows) for rows in self._rows])]).tolist()
        self._cache()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        """One sample, or a list of samples for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"index {index} of {len(self)} rows")
        group = bisect_right(self._starts, number) - 1
        return self._samples_of(group)[number - self._starts[group]]

    def __iter__(self) -> Iterator[_Sample]:
        for group in range(len(self._groups)):
            yield from self._samples(group)

    def __getstate__(self) -> dict[str, Any]:
        """For DataLoader workers: without what was cached."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_samples_of", "_told", "_voices")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache()

    @property
    def time_axis(self) -> int:
        """Along which arrays differ in length: 0, or -1 where codebooks come first."""
        return self._reading.time_axis

    @property
    def ids(self) -> list[str]:
        """Segment id of every sample, read from the files."""
        results: list[str] = []
        for (number, at), rows in zip(self._groups, self._rows, strict=True):
            group = self._file(number).read_row_group(at, columns=["segment_id"])
            results += group.column("segment_id").take(pa.array(rows)).to_pylist()
        return results

    @property
    def collate(self) -> Callable[[Sequence[_Sample]], CollatedBatch]:
        """For `DataLoader(collate_fn=...)`: pads samples to the longest of their batch, with a mask."""
        return _Collate(self._reading.time_axis)

    def stream(self, shuffle_seed: int | None = None, *, rank: int = 0, world_size: int = 1) -> StreamedOutput:
        """The same samples as a torch `IterableDataset`: each DataLoader worker of each process reads samples of its own,
        row group by row group, or one in so many where there are fewer row groups than readers.

        Args:
            shuffle_seed: row groups, and samples inside one, come in an order drawn from it; None: file order.
            rank: of this process, from 0.
            world_size: processes that train together.

        Raises:
            InputError: no such rank.
        """
        if not 0 <= rank < world_size:
            raise InputError(f"rank={rank}: expected 0 to {world_size - 1} of world_size={world_size}")
        return StreamedOutput(self, shuffle_seed, rank, world_size)

    def num_row_groups(self) -> int:
        return len(self._groups)

    def _cache(self) -> None:
        self._samples_of = lru_cache(OPEN_ROW_GROUPS)(self._samples)
        self._told = lru_cache(OPEN_ROW_GROUPS)(self._columns_of)
        self._voices = lru_cache(1)(lambda: voices_of(self._place))

    def _file(self, number: int) -> pq.ParquetFile:
        place = self._place.join(self._table, part_name(self._parts[number]) + ".parquet")
        return pq.ParquetFile(place.path, memory_map=True) if place.is_local else pq.ParquetFile(place.open())

    def _index(self) -> None:
        """Reads ids and the columns to choose by, not the values."""
        kinds: set[tuple[Any, ...]] = set()
        there: set[tuple[Any, ...]] = set()
        choose_by, key = list(self._reading.choose_by), list(self._reading.one_kind)
        for number in range(len(self._parts)):
            file = self._file(number)
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
                self._groups.append((number, group))
                self._rows.append(self._first_rows(np.flatnonzero(mask), chosen))
        if not any(map(len, self._rows)):
            shown = "; ".join(str(dict(zip(choose_by, kind, strict=True))) for kind in sorted(there)[:8])
            raise InputError(f"no rows for {self._only or 'this output'}; there are: {shown or 'none'}")
        if len(kinds) > 1:
            shown = "; ".join(str(dict(zip(choose_by, kind, strict=False))) for kind in sorted(kinds)[:8])
            raise InputError(f"the output holds several kinds of rows; choose one of: {shown}")

    def _first_rows(self, rows: NDArray[np.int64], chosen: pa.Table) -> NDArray[np.int32]:
        """Rows of one segment lie side by side; where they make one sample, its first row stands for it."""
        if self._reading.joins_rows and len(rows):
            ids = chosen.column("segment_id").combine_chunks()
            is_new = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
            rows = rows[np.concatenate([[True], is_new])]
        return rows.astype(np.int32)

    def _samples(self, group: int) -> list[_Sample]:
        """Those of a row group."""
        (number, at), numbers = self._groups[group], self._rows[group]
        names = list(dict.fromkeys(["segment_id", *self._reading.columns]))
        rows = self._file(number).read_row_group(at, columns=names)
        ids = rows.column("segment_id").take(pa.array(numbers)).to_pylist()
        arrays = [self._typed(self._reading.values(rows, row, self._only)) for row in numbers.tolist()]
        if not self._columns:
            return list(zip(ids, arrays, strict=True))
        metadata = self._told(number)
        return [(name, array, metadata[name]) for name, array in zip(ids, arrays, strict=True)]

    def _typed(self, array: NDArray[Any]) -> NDArray[Any]:
        is_float = np.issubdtype(array.dtype, np.floating)
        return array.astype(_DTYPES[self._dtype], copy=False) if self._dtype is not None and is_float else array

    def _columns_of(self, number: int) -> Mapping[str, dict[str, Any]]:
        """The asked columns by segment id, for one part: of segments where they are there, else of recordings."""
        name = part_name(self._parts[number]) + ".parquet"
        segment_columns = [column for column in self._columns if column in schema.SEGMENTS.names]
        others = [column for column in self._columns if column not in (*segment_columns, *VOICE)]
        by_speaker = self._voices() if set(VOICE) & set(self._columns) else {}
        wanted = list(dict.fromkeys(["id", "recording_id", *segment_columns, *(["speaker"] if by_speaker else [])]))
        segments = in_schema(
            read_table(self._place.join("segments", name), wanted),
            pa.schema([schema.SEGMENTS.field(each) for each in wanted]),
        )
        recordings: dict[str, dict[str, Any]] = {}
        if others:
            table = read_table(self._place.join("recordings", name), list(dict.fromkeys(["id", *others])))
            recordings = {row["id"]: row for row in table.to_pylist()}
        columns = {}
        for row in segments.to_pylist():
            voice = by_speaker.get((row["recording_id"], row.get("speaker")), dict.fromkeys(VOICE))
            messages = {**recordings.get(row["recording_id"], {}), **voice, **row}
            columns[row["id"]] = {column: messages[column] for column in self._columns}
        return columns


class _Collate:
    """A plain object, so that DataLoader workers can be started with it in any way."""

    def __init__(self, time_axis: int) -> None:
        self._time_axis = time_axis

    def __call__(self, samples: Sequence[_Sample]) -> CollatedBatch:
        is_pooled = self._time_axis == 0 and samples[0][1].ndim == 1 and samples[0][1].dtype.kind == "f"
        return collated(samples, None if is_pooled else self._time_axis)


class StreamedOutput(IterableDataset[_Sample]):
    """See `OutputDataset.stream`."""

    def __init__(self, dataset: OutputDataset, shuffle_seed: int | None, rank: int = 0, world_size: int = 1) -> None:
        self._dataset, self._seed, self._rank, self._world_size = dataset, shuffle_seed, rank, world_size

    def __iter__(self) -> Iterator[_Sample]:
        groups = np.arange(self._dataset.num_row_groups())
        random = None if self._seed is None else np.random.default_rng(self._seed)
        if random is not None:
            groups = random.permutation(groups)
        worker = get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        readers, me = self._world_size * workers, self._rank * workers + number
        by_group = len(groups) >= readers
        for group in (groups[me::readers] if by_group else groups).tolist():
            samples = self._dataset._samples(group)
            order = (
                range(len(samples))
                if random is None
                else np.random.default_rng([self._seed or 0, group]).permutation(len(samples))
            )
            for index in order if by_group else order[me::readers]:
                yield samples[index]
