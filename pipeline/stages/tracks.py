"""Every audio track of a container as a recording of its own."""

from __future__ import annotations

from typing import Any

from audiomill.audio.segment import whole_spec
from audiomill.config.stages import DecodeConfig
from audiomill.sources.entries import Entries
from audiomill.sources.entry import suffix
from audiomill.stages.sandbox import Decoder

CONTAINERS = frozenset(
    ["mkv", "mka", "mp4", "m4a", "m4b", "mov", "webm", "ts", "avi", "mpg", "mpeg", "3gp", "wma", "asf", "flv"]
)
"""What may hold several tracks, by name."""


def with_every_track(entries: Entries, storage_options: dict[str, Any]) -> Entries:
    """The default track of each container keeps the file's id; the others follow it.

    Args:
        entries: of a listing.
        storage_options: fsspec options.
    """
    asked = [e for e in entries if e.reason is None and suffix(e.member or e.source) in CONTAINERS]
    decoder = Decoder(DecodeConfig(), whole_spec(1.0), storage_options)
    names = ("source", "kind", "position", "size")
    try:
        told = decoder.tracks([{name: getattr(entry, name) for name in names} for entry in asked])
    finally:
        decoder.close()
    counts = {entry.id: found for entry, found in zip(asked, told, strict=True)}
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
