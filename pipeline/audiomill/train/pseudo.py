"""A selection on disk -> recordings and spans with their pseudo-labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.errors import RecordingRejected
from audiomill.report.clip_reader import ClipReader
from audiomill.schema import PLAN
from audiomill.sources.entry import Entry
from audiomill.storage.fs import Place
from audiomill.storage.part_files import read_table

SELECTED_FILE = "selected.parquet"


def is_selection(place: Place) -> bool:
    """Whether a folder is what `audiomill select` wrote."""
    return "." not in place.url.rstrip("/").rsplit("/", 1)[-1] and place.join(SELECTED_FILE).exists()


def read_selection(place: Place) -> Iterator[tuple[Entry, int | None]]:
    """Spans with their pseudo-labels, and the channel of each."""
    for row in read_table(place.join(SELECTED_FILE)).to_pylist():
        yield span_of(row), row["channel"]


def selected_samples(
    rows: Sequence[Mapping[str, Any]], max_seconds: float, options: dict[str, Any]
) -> Iterator[tuple[Mapping[str, Any], NDArray[np.int16]]]:
    """Rows of a selection with their sound, pcm_T at 16 kHz; what cannot be read is left out.

    Args:
        rows: with id, source, member, kind, position, size, channel, offset, duration.
        max_seconds: longer ones are cut there.
        options: for fsspec.
    """
    reader = ClipReader("mix", max_seconds, options)
    try:
        for row in rows:
            planned = {**dict.fromkeys(PLAN.names), **{name: row[name] for name in PLAN.names if name in row}}
            start_s = row["offset"] or 0.0
            with contextlib.suppress(RecordingRejected):
                yield row, reader.samples(planned, start_s, start_s + row["duration"], None)
    finally:
        reader.close()


def span_of(row: Mapping[str, Any]) -> Entry:
    """The stretch of audio that a row of a selection is about, with its text."""
    return Entry(
        row["source"],
        member=row["member"],
        kind=row["kind"],
        position=row["position"],
        size=row["size"],
        duration_s=row["duration"],
        span_start_s=row["offset"],
        span_duration_s=row["duration"],
        reference=row["text"],
        language=row.get("language"),
    )
