"""Every audio track of a container as a recording of its own."""

from __future__ import annotations

from audiomill.sources.entries import Entries
from audiomill.sources.entry import suffix
from audiomill.stages.sandbox import Decoder

CONTAINERS = frozenset(
    ["mkv", "mka", "mp4", "m4a", "m4b", "mov", "webm", "ts", "avi", "mpg", "mpeg", "3gp", "wma", "asf", "flv"]
)
"""What may hold several tracks, by name."""


def with_every_track(entries: Entries, decoder: Decoder) -> Entries:
    """The default track of each container keeps the file's id; the others follow it.

    Args:
        entries: of a listing.
        decoder: looks into them.
    """
    asked = [e for e in entries if e.reason is None and suffix(e.member or e.source) in CONTAINERS]
    names = ("source", "kind", "position", "size")
    told = decoder.tracks([{name: getattr(entry, name) for name in names} for entry in asked])
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
