"""The embeddings or codes of an output as training data: in shards, split by recording or by a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from audiomill.errors import UsageError
from audiomill.exports.shard_files import Sample, write_shards
from audiomill.exports.splits import shares_of, split_of_recordings
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.conditions import Condition, meeting
from audiomill.tables.reader import opened

MEGABYTE = 1_000_000


class SampleOptions(NamedTuple):
    """`split`, `by`, `seed`: see `audiomill.exports.splits`; `only`: rows to take; `columns`: beside the arrays."""

    kind: str
    split: str | None
    by: str
    seed: int
    shard_mb: int
    table: str | None
    only: dict[str, Any]
    columns: Sequence[str]
    dtype: str | None
    where: Sequence[Condition] = ()


def export_samples(output: Place, to: Place, wanted: SampleOptions) -> dict[str, int]:
    """Writes the shards and returns the number of samples by split.

    Raises:
        UsageError, InputError: there is nothing of the kind, the folder is not empty, or a split stays empty.
    """
    if to.names():
        raise UsageError(f"--to {to.url}: is not empty; name a new folder, or empty it")
    shares = shares_of(wanted.split)
    columns = list(dict.fromkeys(["recording_id", *wanted.columns]))
    kept_ids = _kept_ids(output, wanted.where)
    data = opened(
        output.url, wanted.table, columns=columns, dtype=wanted.dtype, storage_options=output.options, only=wanted.only
    )
    split_of = split_of_recordings(output, shares, wanted.by, wanted.seed)

    def samples() -> Iterator[Sample]:
        for segment_id, array, metadata in data:
            if kept_ids is not None and segment_id not in kept_ids:
                continue
            yield Sample(segment_id, np.atleast_2d(array).T if data.time_axis == -1 else array, metadata)

    return write_shards(samples(), wanted.kind, to, split_of, shares, wanted.shard_mb * MEGABYTE)


def _kept_ids(output: Place, conditions: Sequence[Condition]) -> set[str] | None:
    """Segments that meet the conditions; None: all."""
    if not conditions:
        return None
    parts = ledger.each_part(output, "segments")
    return {row["id"] for part, rows in parts for row in meeting(output, part, rows.to_pylist(), conditions)}


def parsed_only(pairs: Sequence[str]) -> dict[str, Any]:
    """`layer=9` -> {"layer": 9}.

    Raises:
        UsageError: not NAME=VALUE.
    """
    results: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name or not value:
            raise UsageError(f"--only {pair}: expected NAME=VALUE, such as layer=9 or quantizer=km50")
        results[name] = int(value) if value.lstrip("-").isdigit() else value
    return results
