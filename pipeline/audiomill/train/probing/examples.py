"""Pooled vectors with their labels. N samples, L layers, D width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audiomill.config.output_jobs import ProbeConfig
from audiomill.errors import InputError, UsageError
from audiomill.sources.references import read_joined
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute
from audiomill.tables.rows import metadata_of

_Row = dict[str, Any]


class Examples(NamedTuple):
    """`layers`: hidden states, in order; `groups`: what is never on both sides of a test; `num_unlabelled`: segments
    without a label."""

    features_NLD: NDArray[np.float32]
    labels: list[str]
    groups: list[str]
    layers: list[int]
    num_unlabelled: int


def read_examples(output: Place, config: ProbeConfig) -> Examples:
    """The labelled segments of an output.

    Raises:
        InputError: it has no pooled vectors, or no label matches a recording.
    """
    if not output.join("embeddings").names():
        raise InputError(f"{output.url}: no vectors; expected the --output of `embed --layers all --pool mean`")
    pool = _pool(output, config.pool)
    labels = _labels(output, config)
    names = _labelled_segments(output, labels)
    step = max(1, -(-len(names) // config.max_segments))
    chosen = set(names[::step])
    vectors: dict[str, dict[int, NDArray[np.float32]]] = {}
    recording_of: dict[str, str] = {}
    total = 0
    for _, rows in ledger.each_part(
        output, "embeddings", ["segment_id", "recording_id", "layer", "pool", "values", "scale"]
    ):
        rows = rows.filter(pc.equal(rows.column("pool"), pool))
        total += len(set(rows.column("segment_id").to_pylist()))
        for row in rows.filter(pc.is_in(rows.column("segment_id"), pa.array(sorted(chosen)))).to_pylist():
            scale = 1.0 if row["scale"] is None else row["scale"][0]
            vectors.setdefault(row["segment_id"], {})[row["layer"]] = np.array(row["values"], np.float32) * scale
            recording_of[row["segment_id"]] = row["recording_id"]
    order = sorted(vectors)
    layers = sorted(vectors[order[0]])
    if layers[0] < 0:
        raise InputError(f"{output.url}: holds a mixture; expected single layers: `embed --layers all --pool mean`")
    features = np.stack([np.stack([vectors[name][layer] for layer in layers]) for name in order])
    pairs = [labels[recording_of[name]] for name in order]
    return Examples(features, [label for label, _ in pairs], [group for _, group in pairs], layers, total - len(names))


def _pool(output: Place, wanted: str | None) -> str:
    results: set[str] = set()
    for _, rows in ledger.each_part(output, "embeddings", ["pool"]):
        results |= set(rows.column("pool").unique().to_pylist())
    pooled = sorted(results - {"none"})
    if not pooled:
        raise InputError(
            f"{output.url}: holds frames; a probe reads one vector a segment: `embed --layers all --pool mean`"
        )
    if wanted is None and len(pooled) > 1:
        raise UsageError(f"--pool: the output holds {', '.join(pooled)}; choose one")
    if wanted is not None and wanted not in pooled:
        raise UsageError(f"--pool {wanted}: the output holds {', '.join(pooled)}")
    return wanted or pooled[0]


def _labels(output: Place, config: ProbeConfig) -> dict[str, tuple[str, str]]:
    """Label and group by recording id."""
    look = _by_manifest(config) if config.labels is None else _by_file(config, config.labels)
    labels: dict[str, tuple[str, str]] = {}
    for _, rows in ledger.each_part(output, "recordings", ["id", "source", "member", "language", "metadata"]):
        for row in rows.to_pylist():
            label = look(row)
            if label is not None and label.get(config.by) is not None:
                group = row["id"] if config.group is None else label.get(config.group)
                if group is None:
                    raise UsageError(f"--group {config.group}: {row['source']} has no such column")
                labels[row["id"]] = (str(label[config.by]), str(group))
    if not labels:
        where = "the manifest of its audio" if config.labels is None else config.labels
        raise InputError(
            f"--by {config.by}: no recording of {output.url} has such a label in {where}; labels are joined by id, path or file name"
        )
    return labels


def _by_manifest(config: ProbeConfig) -> Callable[[_Row], _Row | None]:
    def look(row: _Row) -> _Row | None:
        return {**metadata_of(row), "language": row["language"], "source": row["source"]}

    return look


def _by_file(config: ProbeConfig, labels: str) -> Callable[[_Row], _Row | None]:
    def value_of(row: _Row) -> _Row | None:
        return row if row.get(config.by) is not None else None

    place = Place(absolute(labels), config.storage_options)
    return read_joined(place, "--labels", value_of, f"a column {config.by}").text_of


def _labelled_segments(output: Place, labels: dict[str, tuple[str, str]]) -> list[str]:
    names: list[str] = []
    for _, rows in ledger.each_part(output, "segments", ["id", "recording_id"]):
        names += [row["id"] for row in rows.to_pylist() if row["recording_id"] in labels]
    return sorted(names)
