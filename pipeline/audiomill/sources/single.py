"""A file that is one recording, with the texts beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from audiomill.sources.entry import Entry, Sidecar, stem
from audiomill.sources.shard import Shard
from audiomill.storage.fs import Place, special_kind


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
