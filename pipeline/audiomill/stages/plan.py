"""Inputs -> recordings -> parts: groups of recordings of roughly equal audio, shards kept together."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from audiomill import schema
from audiomill.audio.cutting.segmenter import whole_spec
from audiomill.config.defaults import LEAST_PART_S, MOST_PART_S, NUM_PARTS
from audiomill.config.stages import DecodeConfig, PlanConfig
from audiomill.models.device import usable_cores
from audiomill.sources.entry import ENTRY_BATCH, Entries, Entry, suffix
from audiomill.sources.listing import Listing, list_inputs
from audiomill.sources.parquet import GROUP, parquet_rows
from audiomill.sources.shards import HEADER_IS_CHEAP, KNOWS_SIZE
from audiomill.stages.sandbox import Decoder
from audiomill.storage.urls import protocol

CONTAINERS = frozenset(
    ["mkv", "mka", "mp4", "m4a", "m4b", "mov", "webm", "ts", "avi", "mpg", "mpeg", "3gp", "wma", "asf", "flv"]
)
"""What may hold several tracks, by name."""
GROUPS_AT_ONCE = 8
"""Row groups whose texts travel together."""


def listed(inputs: tuple[str, ...], plan: PlanConfig, decode: DecodeConfig, output: str) -> Listing:
    """What the inputs hold; see `audiomill.sources.listing.list_inputs`, also for errors.

    Args:
        inputs: paths and URLs as typed.
        plan: storage options and audio root.
        decode: which column and tracks are meant.
        output: the output folder, left out when it lies inside an input.
    """
    listing = list_inputs(inputs, plan.storage_options, plan.audio_root, output, decode.audio_column)
    looking = DecodeConfig(audio_column=decode.audio_column)
    with contextlib.closing(Decoder(looking, whole_spec(1.0), listing.options(plan.storage_options))) as decoder:
        if GROUP in listing.entries.table.column("kind").unique().to_pylist():
            listing.entries = _with_rows(listing.entries, decoder)
        if decode.track == "all":
            listing.entries = _with_every_track(listing.entries, decoder)
    return listing


def _with_rows(entries: Entries, decoder: Decoder) -> Entries:
    """With the rows of Parquet shards in place of their row groups."""
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    every, waiting = Entries(), iter(entries)
    while chunk := list(islice(waiting, GROUPS_AT_ONCE)):
        asked = [{"source": e.source, "position": e.position} for e in chunk if e.kind == GROUP]
        row_lists = iter(decoder.rows(asked) if asked else ())
        for entry in chunk:
            if entry.kind != GROUP:
                every.append(entry)
                continue
            for row in parquet_rows(entry, next(row_lists), seen[entry.source]):
                every.append(row.as_text)
    return every


def _with_every_track(entries: Entries, decoder: Decoder) -> Entries:
    """The default track of each container keeps the file's id; the others follow it.

    Args:
        entries: of a listing.
        decoder: looks into them.
    """
    asked = [e for e in entries if e.reason is None and suffix(e.member or e.source) in CONTAINERS]
    names = ("source", "kind", "position", "size")
    track_lists = decoder.tracks([{name: getattr(entry, name) for name in names} for entry in asked])
    counts = {entry.id: result for entry, result in zip(asked, track_lists, strict=True)}
    every = Entries()
    for entry in entries:
        count, default = counts.get(entry.id, (1, 1))
        if count < 2:
            every.append(entry)
            continue
        further = [number for number in range(1, count + 1) if number != default]
        every.append(entry._replace(track=default))
        for number in further:
            every.append(entry._replace(track=number, is_further_track=True))
    return every


_BYTES_PER_SECOND = {
    "wav": 48_000, "wave": 48_000, "aif": 96_000, "aiff": 96_000, "au": 16_000, "sph": 24_000, "flac": 30_000, "mp3": 16_000, "m4a": 12_000,
    "mp4": 150_000, "aac": 12_000, "ogg": 10_000, "opus": 5_000, "webm": 10_000, "amr": 1_500, "mkv": 300_000, "mov": 500_000,
    "mpg": 300_000, "mpeg": 300_000, "vob": 700_000, "ts": 500_000, "m2ts": 2_000_000, "avi": 200_000, "flv": 100_000, "wmv": 200_000,
    "wma": 16_000, "caf": 96_000, "m4b": 8_000, "3gp": 30_000,
}  # fmt: skip
"""Usual sizes, to balance parts where reading the header would cost a request; only balance depends on it."""
DEFAULT_BYTES_PER_SECOND = 16_000
DEFAULT_SECONDS = 10.0
MIN_PLANNED_S = 0.5
MAX_PART_RECORDINGS = 4_000
MIN_PROBED = 500
"""Headers that one decode process reads: starting another costs as much."""


def planned_table(
    entries: Iterable[Entry], durations: Sequence[float | None], *, first_part: int, part_seconds: float
) -> pa.Table:
    """The rows of `schema.PLAN` for new recordings.

    Args:
        entries: in input order.
        durations: theirs, as far as they are known, see `header_durations`.
        first_part: number of the first new part.
        part_seconds: audio seconds a part aims at.
    """
    table = Entries.of(entries).table
    planned = planned_seconds(table, durations)
    parts = assign_parts(table.column("source").to_pylist(), planned, part_seconds)
    added = {"part": [first_part + part for part in parts], "duration_s": durations, "planned_s": planned}
    columns = [
        pa.chunked_array([pa.array(added[field.name], field.type)]) if field.name in added else table.column(field.name)
        for field in schema.PLAN
    ]
    return pa.Table.from_arrays(columns, schema=schema.PLAN)


def part_seconds_for(entries: Iterable[Entry], durations: Sequence[float | None], device: str) -> float:
    """Audio of a part for a corpus: a twentieth of it, within the bounds of the device."""
    total = sum(planned_seconds(Entries.of(entries).table, durations))
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


def planned_seconds(table: pa.Table, durations: Sequence[float | None]) -> list[float]:
    """What is known of the length of each recording, or a guess by its size; only the balance of parts depends on it.

    Args:
        table: see `audiomill.sources.entry.LISTED`.
        durations: see `header_durations`.
    """
    names = ("source", "member", "kind", "size", "span_duration_s", "reason")
    results: list[float] = []
    for batch in table.select(names).to_batches(max_chunksize=ENTRY_BATCH):
        rows = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
        for source, member, kind, size, span_s, reason in rows:
            known = durations[len(results)] if span_s is None else span_s
            if known is None and size is not None and kind in KNOWS_SIZE:
                known = size / _BYTES_PER_SECOND.get(suffix(member or source), DEFAULT_BYTES_PER_SECOND)
            usual = DEFAULT_SECONDS if known is None else known
            results.append(0.0 if reason is not None else max(MIN_PLANNED_S, usual))
    return results


def header_durations(entries: Iterable[Entry], storage_options: dict[str, Any]) -> list[float | None]:
    """Durations already known, or by header where that costs no request: local files and tar members."""
    table = Entries.of(entries).table
    result: list[float | None] = table.column("duration_s").to_pylist()
    is_open = pc.and_(pc.is_null(table.column("duration_s")), pc.is_null(table.column("reason")))
    is_cheap = pc.is_in(table.column("kind"), value_set=pa.array(sorted(HEADER_IS_CHEAP)))
    at = pc.indices_nonzero(pc.and_(is_open, is_cheap))
    rows = table.select(["source", "kind", "position", "size"]).take(at)
    sources = rows.column("source").to_pylist()
    wanted = [row for row, source in enumerate(sources) if protocol(source) in ("file", "local")]
    at, rows = at.take(pa.array(wanted, pa.int64())), rows.take(pa.array(wanted, pa.int64()))

    def probe(rows: pa.Table) -> list[float | None]:
        with contextlib.closing(Decoder(DecodeConfig(), whole_spec(1.0), storage_options)) as decoder:
            return decoder.durations(rows.to_pylist())

    size = max(MIN_PROBED, -(-len(wanted) // usable_cores()))
    chunks = [rows.slice(start, size) for start in range(0, len(wanted), size)]
    with ThreadPoolExecutor(max(1, len(chunks))) as pool:
        durations = itertools.chain.from_iterable(pool.map(probe, chunks))
        for index, duration in zip(at.to_pylist(), durations, strict=True):
            result[index] = duration
    return result
