"""A selection on disk -> recordings and spans with their pseudo-labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
