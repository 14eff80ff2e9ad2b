"""One planned recording: where its bytes lie and what is known about it before reading; and many of them in little memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import pyarrow as pa

from audiomill import schema
from audiomill.storage.urls import readable

_SUFFIXES = (
    "wav wave bwf w64 rf64 flac oga ogg ogv ogx opus spx mp1 mp2 mp3 mpa mpga aac adts m4a m4b m4p m4r m4v mp4 mov qt f4a f4v "
    "mkv mka mks webm avi divx asf wma wmv flv swf ts m2t m2ts mts tp mpg mpeg mpe mpv m2p ps vob 3gp 3gpp 3ga 3g2 amr awb "
    "aif aiff aifc au snd caf sph nist gsm voc wv tta ape mpc ac3 ec3 eac3 dts dtshd thd truehd rm rmvb ra ra4 ircam sf paf "
    "svx 8svx iff avr htk pvf sox mxf nut loas latm oma aa3 dsf dff xwma shn wtv"
)
AUDIO_SUFFIXES = frozenset(_SUFFIXES.split())
"""Taken as recordings when found in folders, globs and tar shards. A file named outright is always taken."""


class Sidecar(NamedTuple):
    """Text beside the audio, by name (`txt`, `json`): in a tar at `position`, else beside the file."""

    kind: str
    position: int
    size: int


class Entry(NamedTuple):
    """A row of the plan without its part. See `schema.PLAN` for the columns."""

    source: str
    member: str = ""
    kind: str = "file"
    position: int = 0
    size: int | None = None
    duration_s: float | None = None
    span_start_s: float | None = None
    span_duration_s: float | None = None
    reference: str | None = None
    language: str | None = None
    metadata: str | None = None
    sidecars: tuple[Sidecar, ...] | None = None
    reason: str | None = None
    detail: str | None = None
    track: int | None = None
    version: str | None = None
    channel: int | None = None
    """The one that a manifest row means."""
    is_further_track: bool = False
    """Not the container's default one, which keeps the id of the file."""
    key: str | None = None
    """Lhotse recording id, to join supervisions; not stored."""

    @property
    def as_text(self) -> Entry:
        """With names and texts that any table can hold, see `audiomill.storage.urls.readable`."""
        texts = ("source", "member", "reference", "language", "metadata", "detail", "key")
        results: dict[str, Any] = {
            name: readable(value) for name in texts if (value := getattr(self, name)) and not value.isascii()
        }
        return self._replace(**results) if results else self

    @property
    def id(self) -> str:
        """Stable and content-free: from source, member, span, further track and channel alone."""
        span = "" if self.span_start_s is None else f"{self.span_start_s!r}+{self.span_duration_s!r}"
        further = [f"track {self.track}"] if self.is_further_track else []
        further += [] if self.channel is None else [f"channel {self.channel}"]
        return hashlib.sha256(
            "\0".join((self.source, self.member, span, *further)).encode("utf-8", "surrogateescape")
        ).hexdigest()[:20]


def suffix(name: str) -> str:
    """`a/b.WAV` -> `wav`; empty without a dot."""
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[1].lower() if "." in base else ""


def stem(name: str) -> str:
    """`a/b.c.wav` -> `a/b.c`."""
    return name[: len(name) - len(suffix(name)) - 1] if suffix(name) else name


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder on the way to it, is one that systems and editors hide."""
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in path.split("/"))


ENTRY_BATCH = 10_000
"""Entries that are held as objects at a time."""
LISTED = pa.schema(
    [
        *(field for field in schema.PLAN if field.name not in ("part", "planned_s")),
        pa.field("is_further_track", pa.bool_()),
        pa.field("key", pa.string()),
    ]
)
"""The columns of an `Entry`, and its id."""


class Entries(Sequence[Entry]):
    """A sequence of entries that can grow, and be looked at as a table."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._tables: list[pa.Table] = []
        self._waiting: list[Entry] = []
        for entry in entries:
            self.append(entry)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        """The same object where it is one already."""
        return entries if isinstance(entries, Entries) else cls(entries)

    @classmethod
    def _of_table(cls, table: pa.Table) -> Entries:
        result = cls()
        result._tables = [table]
        return result

    def append(self, entry: Entry) -> None:
        self._waiting.append(entry)
        if len(self._waiting) == ENTRY_BATCH:
            self._pack()

    @property
    def table(self) -> pa.Table:
        """All entries, as `LISTED`."""
        self._pack()
        return pa.concat_tables(self._tables) if self._tables else LISTED.empty_table()

    def take(self, numbers: pa.Array) -> Entries:
        """Those at some places, in that order."""
        return self._of_table(self.table.take(numbers))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Entry]:
        for batch in self.table.to_batches(max_chunksize=ENTRY_BATCH):
            yield from (_entry(row) for row in batch.to_pylist())

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> Entries: ...
    def __getitem__(self, at: int | slice) -> Entry | Entries:
        table = self.table
        if isinstance(at, slice):
            return self.take(pa.array(range(*at.indices(table.num_rows)), pa.int64()))
        return _entry(table.slice(range(table.num_rows)[at], 1).to_pylist()[0])

    def _pack(self) -> None:
        if self._waiting:
            columns = {name: [getattr(entry, name) for entry in self._waiting] for name in LISTED.names}
            columns["sidecars"] = [
                [sidecar._asdict() for sidecar in entry.sidecars] if entry.sidecars else None for entry in self._waiting
            ]
            arrays = [pa.array(columns[field.name], field.type) for field in LISTED]
            self._tables.append(pa.Table.from_arrays(arrays, schema=LISTED))
            self._waiting = []


def _entry(row: dict[str, object]) -> Entry:
    sidecars = row.pop("sidecars")
    row.pop("id")
    assert sidecars is None or isinstance(sidecars, list)
    return Entry(**row, sidecars=tuple(Sidecar(**sidecar) for sidecar in sidecars) if sidecars else None)  # type: ignore[arg-type]
