"""Samples of an output -> shards in three formats. F frames, D width, K codebooks."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audiomill import schema
from audiomill.storage.fs import Place
from audiomill.storage.part_files import to_bytes


class Sample(NamedTuple):
    """`array`: values_FD or values_D, codes_FK; `metadata`: other columns, recording_id among them."""

    segment_id: str
    array: NDArray[Any]
    metadata: Mapping[str, Any]


Files = Iterator[tuple[str, bytes]]
"""Suffix and content of the files of one shard."""


def _parquet(samples: Sequence[Sample]) -> Files:
    """As `datasets.load_dataset` and every Parquet reader take them: nested lists."""
    columns: dict[str, Any] = {"segment_id": pa.array([sample.segment_id for sample in samples], pa.string())}
    columns |= {name: pa.array([each.metadata[name] for each in samples], _kind(name)) for name in samples[0].metadata}
    columns["array"] = _nested([sample.array for sample in samples])
    yield ".parquet", to_bytes(pa.table(columns))


def _kind(column: str) -> Any:
    """Type of a column whatever this shard holds: `load_dataset` wants that of the first one in all."""
    known = next((each for each in (schema.SEGMENTS, schema.RECORDINGS) if column in each.names), None)
    return pa.string() if known is None else known.field(column).type


def _nested(arrays: Sequence[NDArray[Any]]) -> pa.Array:
    flat = pa.array(np.concatenate([array.reshape(-1) for array in arrays]))
    if arrays[0].ndim == 1:
        return pa.ListArray.from_arrays(_offsets([len(each) for each in arrays]), flat)
    rows = pa.FixedSizeListArray.from_arrays(flat, arrays[0].shape[1])
    return pa.ListArray.from_arrays(_offsets([len(each) for each in arrays]), rows)


def _offsets(sizes: Sequence[int]) -> pa.Array:
    return pa.array(np.cumsum([0, *sizes]), pa.int32())


def _tar(samples: Sequence[Sample]) -> Files:
    """WebDataset: `ID.npy` and `ID.json` side by side."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            metadata = json.dumps({"segment_id": sample.segment_id, **sample.metadata}, ensure_ascii=False)
            for suffix, content in ((".npy", _npy(sample.array)), (".json", metadata.encode())):
                member = tarfile.TarInfo(re.sub(r"[^\w-]", "_", sample.segment_id) + suffix)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    yield ".tar", sink.getvalue()


def _arrays(samples: Sequence[Sample]) -> Files:
    """All frames in one array that can be mapped, where each sample's begin (`offsets`), and a line of JSON for each."""
    rows = [sample.array if sample.array.ndim == 2 else sample.array[None] for sample in samples]
    yield ".npy", _npy(np.concatenate(rows))
    yield ".offsets.npy", _npy(np.cumsum([0, *map(len, rows)]))
    lines = [json.dumps({"segment_id": s.segment_id, **s.metadata}, ensure_ascii=False) + "\n" for s in samples]
    yield ".jsonl", "".join(lines).encode()


def _npy(array: NDArray[Any]) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


FORMATS: dict[str, tuple[str, Callable[[Sequence[Sample]], Files]]] = {
    "datasets": ("data", _parquet),
    "webdataset": ("", _tar),
    "numpy": ("", _arrays),
}
"""Folder of the shards, and what makes one."""


def write_shards(
    samples: Iterator[Sample], kind: str, to: Place, split_of: Mapping[str, str], shares: Mapping[str, float], size: int
) -> dict[str, int]:
    """Writes samples as they come; only one shard a split is in memory.

    Args:
        samples: with `recording_id` among what is told of them.
        kind: of FORMATS.
        to: an empty folder.
        split_of: by recording.
        shares: splits by name.
        size: bytes of arrays after which a shard is closed.

    Returns:
        Samples by split.
    """
    folder, make = FORMATS[kind]
    place = to.join(folder) if folder else to
    waiting: dict[str, list[Sample]] = {name: [] for name in shares}
    held, shards, counts = (dict.fromkeys(shares, 0) for _ in range(3))

    def close(split: str) -> None:
        if waiting[split]:
            for suffix, content in make(waiting[split]):
                place.join(f"{split}-{shards[split]:05d}{suffix}").write(content)
            shards[split] += 1
            waiting[split], held[split] = [], 0

    for sample in samples:
        split = split_of[sample.metadata["recording_id"]]
        waiting[split].append(sample)
        counts[split] += 1
        held[split] += sample.array.nbytes
        if held[split] >= size:
            close(split)
    for split in shares:
        close(split)
    if kind == "datasets":
        to.join("README.md").write(_card([split for split in shares if counts[split]]).encode())
    return counts


def _card(splits: Sequence[str]) -> str:
    """What tells `datasets.load_dataset(FOLDER)` the splits."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in splits:
        lines += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    return "\n".join([*lines, "---", "", "Vectors or codes, a row a segment; written by `audiomill export`.", ""])
