"""Inputs -> parts: groups of recordings of roughly equal audio, shards kept together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from audiomill import schema
from audiomill.audio.segment import whole_spec
from audiomill.config.defaults import LEAST_PART_S, MOST_PART_S, NUM_PARTS
from audiomill.config.stages import DecodeConfig
from audiomill.models.device import usable_cores
from audiomill.sources.entry import Entry, suffix
from audiomill.sources.shards import HEADER_IS_CHEAP, KNOWS_SIZE
from audiomill.stages.sandbox import Decoder
from audiomill.storage.fs import protocol

BYTES_PER_SECOND = {
    "wav": 48_000, "wave": 48_000, "aif": 96_000, "aiff": 96_000, "au": 16_000, "sph": 24_000, "flac": 30_000, "mp3": 16_000, "m4a": 12_000,
    "mp4": 60_000, "aac": 12_000, "ogg": 10_000, "opus": 5_000, "webm": 10_000, "amr": 1_500, "mkv": 100_000, "mov": 200_000,
}  # fmt: skip
"""Usual sizes, to balance parts where reading the header would cost a request; only balance depends on it."""
DEFAULT_BYTES_PER_SECOND = 16_000
DEFAULT_SECONDS = 10.0
MIN_PLANNED_S = 0.5
MAX_PART_RECORDINGS = 4_000
MIN_PROBED = 500
"""Headers that one decode process reads: starting another costs as much."""


def planned_table(
    entries: Sequence[Entry], durations: Sequence[float | None], *, first_part: int, part_seconds: float
) -> pa.Table:
    """The rows of `schema.PLAN` for new recordings.

    Args:
        entries: in input order.
        durations: theirs, as far as they are known, see `header_durations`.
        first_part: number of the first new part.
        part_seconds: audio seconds a part aims at.
    """
    planned = [_planned_s(entry, duration) for entry, duration in zip(entries, durations, strict=True)]
    parts = assign_parts([entry.source for entry in entries], planned, part_seconds)
    columns: dict[str, Any] = {name: [getattr(entry, name) for entry in entries] for name in _PASSED_ON}
    columns["id"] = [entry.id for entry in entries]
    columns["part"] = [first_part + part for part in parts]
    columns["duration_s"], columns["planned_s"] = durations, planned
    columns["sidecars"] = [[s._asdict() for s in entry.sidecars] if entry.sidecars else None for entry in entries]
    return pa.table([pa.array(columns[field.name], field.type) for field in schema.PLAN], schema=schema.PLAN)


_PASSED_ON = (
    "source", "member", "kind", "position", "size", "span_start_s", "span_duration_s", "track", "reference", "language", "metadata", "reason", "detail",
)  # fmt: skip


def part_seconds_for(entries: Sequence[Entry], durations: Sequence[float | None], device: str) -> float:
    """Audio of a part for a corpus: a twentieth of it, within the bounds of the device."""
    total = sum(_planned_s(entry, duration) for entry, duration in zip(entries, durations, strict=True))
    least = LEAST_PART_S["cuda" if device.startswith("cuda") else "cpu"]
    return min(MOST_PART_S, max(least, total / NUM_PARTS))


def assign_parts(sources: Sequence[str], planned_s: Sequence[float], part_seconds: float) -> list[int]:
    """Part number of each recording, from 0, without gaps.

    Order is kept. A shard that fits into one part is not split over two; a longer one is cut between its
    recordings. A single recording longer than a part is a part of its own.
    """
    parts: list[int] = []
    part, filled, count = 0, 0.0, 0
    for group in _atoms(sources, planned_s, part_seconds):
        seconds = sum(planned_s[i] for i in group)
        if count and (filled + seconds > part_seconds or count + len(group) > MAX_PART_RECORDINGS):
            part, filled, count = part + 1, 0.0, 0
        parts += [part] * len(group)
        filled, count = filled + seconds, count + len(group)
    return parts


def _atoms(sources: Sequence[str], planned_s: Sequence[float], part_seconds: float) -> Iterator[list[int]]:
    """Runs of one source that stay together, or single recordings where the run is too long."""
    for _, run in groupby(range(len(sources)), key=lambda i: sources[i]):
        indices = list(run)
        if len(indices) <= MAX_PART_RECORDINGS and sum(planned_s[i] for i in indices) <= part_seconds:
            yield indices
        else:
            yield from ([i] for i in indices)


def _planned_s(entry: Entry, duration_s: float | None) -> float:
    if entry.reason is not None:
        return 0.0
    known = entry.span_duration_s if entry.span_duration_s is not None else duration_s
    if known is None and entry.size is not None and entry.kind in KNOWS_SIZE:
        known = entry.size / BYTES_PER_SECOND.get(suffix(entry.member or entry.source), DEFAULT_BYTES_PER_SECOND)
    return max(MIN_PLANNED_S, DEFAULT_SECONDS if known is None else known)


def header_durations(entries: Sequence[Entry], storage_options: dict[str, Any]) -> list[float | None]:
    """Durations already known, or by header where that costs no request: local files and tar members."""
    found = [entry.duration_s for entry in entries]
    wanted = [
        i
        for i, e in enumerate(entries)
        if e.duration_s is None
        and e.reason is None
        and e.kind in HEADER_IS_CHEAP
        and protocol(e.source) in ("file", "local")
    ]

    wanted = [i for i in wanted if Path(entries[i].source).is_file()]  # a pipe could keep us waiting for ever

    def probe(indices: list[int]) -> list[float | None]:
        names = ("source", "kind", "position", "size")
        decoder = Decoder(DecodeConfig(), whole_spec(1.0), storage_options)
        try:
            return decoder.durations([{name: getattr(entries[i], name) for name in names} for i in indices])
        finally:
            decoder.close()

    size = max(MIN_PROBED, -(-len(wanted) // usable_cores()))
    chunks = [wanted[at : at + size] for at in range(0, len(wanted), size)]
    with ThreadPoolExecutor(max(1, len(chunks))) as pool:
        for indices, durations in zip(chunks, pool.map(probe, chunks), strict=True):
            for index, duration in zip(indices, durations, strict=True):
                found[index] = duration
    return found
