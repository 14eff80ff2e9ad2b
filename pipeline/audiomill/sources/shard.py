"""What the rest of the house knows of a kind of shard: one value a file. A shard is one object that holds recordings.

Listing reads headers and metadata, never audio. Members are read in place and never unpacked to disk, so no member name
can point outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from audiomill.sources.entry import Entry, Sidecar, stem
from audiomill.sources.manifest_row import Note
from audiomill.storage.fs import Place, special_kind

SIDECAR_SUFFIXES = ("txt", "json")
MAX_SIDECAR_BYTES = 1 << 20


class OpenShard(Protocol):
    """A shard that is being read; members come in the order of the plan."""

    def member(self, kind: str, position: int, size: int | None) -> IO[bytes]:
        """Encoded bytes of one recording as a seekable file. Arguments as in `schema.PLAN`."""
        ...

    def sidecar(self, kind: str, sidecar: Sidecar) -> bytes:
        """Bytes of the text beside a recording."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A kind of shard.

    Attributes:
        kinds: what `plan.kind` may say of its members.
        is_one: whether a file name looks like one.
        entries: its recordings, in its order; None where it holds none of this kind after all. Takes its place, its name,
            and the column of the audio where one was asked for.
        opened: for reading; takes its place and that column.
        missing: what a file that was named outright should have had, where `entries` gives None.
        knows_size: kinds whose `plan.size` is in bytes.
        header_is_cheap: kinds whose headers cost no request, on a local disk.
    """

    kinds: tuple[str, ...]
    is_one: Callable[[str], bool]
    entries: Callable[[Place, str, str | None], Iterator[Entry | Note] | None]
    opened: Callable[[Place, str | None], OpenShard]
    missing: str = ""
    knows_size: tuple[str, ...] = ()
    header_is_cheap: tuple[str, ...] = ()


class _OpenFile:
    """See `OpenShard`."""

    def __init__(self, place: Place, column: str | None) -> None:
        self._place = place

    def member(self, kind: str, position: int, size: int | None) -> IO[bytes]:
        special = special_kind(self._place)
        if special is not None:  # opening a pipe could keep us waiting for ever
            raise OSError(f"{special}; write its audio to a file first")
        return self._place.open()

    def sidecar(self, kind: str, sidecar: Sidecar) -> bytes:
        return Place(f"{stem(self._place.url)}.{sidecar.kind}", self._place.options).read()

    def close(self) -> None:
        """Nothing is kept open: the recording's handle is the caller's."""


def _entries(place: Place, source: str, column: str | None) -> Iterator[Entry]:
    yield Entry(source)


SINGLE = Shard(
    kinds=("file",),
    is_one=lambda name: True,
    entries=_entries,
    opened=_OpenFile,
    knows_size=("file",),
    header_is_cheap=("file",),
)
