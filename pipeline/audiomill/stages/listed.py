"""INPUT arguments -> every recording that they hold, with what only the decode process may look at."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from itertools import islice

from audiomill.audio.cutting.segment import whole_spec
from audiomill.config.stages import DecodeConfig, PlanConfig
from audiomill.sources.entries import Entries
from audiomill.sources.entry import suffix
from audiomill.sources.listing import Listing, list_inputs
from audiomill.sources.parquet import GROUP, parquet_rows
from audiomill.stages.sandbox import Decoder

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
