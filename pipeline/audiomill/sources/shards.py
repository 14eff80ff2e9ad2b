"""Every kind of shard, and the reader that opens planned members of any."""

from __future__ import annotations

from typing import IO, Any

from audiomill.sources.entry import Sidecar
from audiomill.sources.parquet import GROUP, PARQUET, OpenParquet, Row
from audiomill.sources.shard import SINGLE, OpenShard, Shard
from audiomill.sources.tar import TAR
from audiomill.sources.zip_archive import ZIP
from audiomill.storage.fs import Place
from audiomill.storage.urls import path_of

SHARDS = (TAR, ZIP, PARQUET, SINGLE)
"""The first that a name fits is taken; a single file fits any."""
KNOWS_SIZE = frozenset(kind for shard in SHARDS for kind in shard.knows_size)
HEADER_IS_CHEAP = frozenset(kind for shard in SHARDS for kind in shard.header_is_cheap)


def shard_of(name: str) -> Shard:
    """The kind of shard that a file looks like."""
    return next(shard for shard in SHARDS if shard.is_one(path_of(name)))


class ShardReader:
    """Opens planned members; keeps the last shard open, because a part reads its members in order."""

    def __init__(self, options: dict[str, Any], column: str | None = None) -> None:
        self._options, self._column = options, column
        self._name: tuple[str, Shard] | None = None
        self._shard: OpenShard | None = None

    def open(self, source: str, kind: str, position: int, size: int | None) -> IO[bytes]:
        """Encoded bytes of one recording as a seekable file. `position`, `size`: as in `schema.PLAN`."""
        return self._opened(source, kind).member(kind, position, size)

    def rows(self, source: str, position: int) -> list[Row]:
        """What a row group of a Parquet shard says beside its audio."""
        shard = self._opened(source, GROUP)
        assert isinstance(shard, OpenParquet), "no other shard has row groups"
        return shard.rows(position)

    def sidecar(self, source: str, kind: str, sidecar: Sidecar) -> bytes:
        """Bytes of the text beside a recording."""
        return self._opened(source, kind).sidecar(kind, sidecar)

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()
        self._name = self._shard = None

    def _opened(self, source: str, kind: str) -> OpenShard:
        name = (source, next(shard for shard in SHARDS if kind in shard.kinds))
        if self._shard is None or self._name != name:
            self.close()
            self._shard, self._name = name[1].opened(Place(source, self._options), self._column), name
        return self._shard
