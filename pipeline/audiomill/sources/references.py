"""Reference texts (or labels) from a file, joined to recordings by id, source or name; never by position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from audiomill.errors import InputError
from audiomill.sources.delimited import PATH_COLUMNS, TEXT_COLUMNS
from audiomill.sources.entry import Entry, stem
from audiomill.sources.manifest_row import BadRow, Note
from audiomill.sources.manifests import read_manifest, read_rows
from audiomill.storage.fs import Place
from audiomill.storage.urls import source_of

Value = TypeVar("Value")


class Joined(Generic[Value]):
    """What a file tells by the keys that name a recording, strongest first: id, source and member, source, file name."""

    def __init__(self) -> None:
        self._texts: list[Value] = []
        self._used: set[int] = set()
        self._by_key: defaultdict[tuple[str, str], set[int]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: Value, keys: dict[str, str]) -> None:
        """Takes one text under every key that its row gives."""
        for kind, key in keys.items():
            self._by_key[kind, key].add(len(self._texts))
        self._texts.append(text)

    @property
    def num_unused(self) -> int:
        """Texts that `text_of` has not given out."""
        return len(self._texts) - len(self._used)

    def text_of(self, recording: dict[str, Any]) -> Value | None:
        """The text for a row of the recordings table; None without one, or with several of equal standing."""
        number = self.find(recording)
        if number is None:
            return None
        self._used.add(number)
        return self.text(number)

    def find(self, recording: dict[str, Any]) -> int | None:
        """Number of the text for a row of the recordings table."""
        name = (recording["member"] or recording["source"]).rsplit("/", 1)[-1]
        keys = [("id", recording["id"])]
        if recording["member"]:
            keys += [("member", recording["member"])]
        else:
            keys += [("source", recording["source"])]
        in_folder = _last_names(recording["member"] or recording["source"])
        keys += [("name", in_folder), ("name", name), ("name", stem(name))]
        for key in keys:
            result = self._by_key.get(key)
            if result is not None and len(result) == 1:
                return next(iter(result))
        return None

    def text(self, number: int) -> Value:
        return self._texts[number]


def _last_names(path: str) -> str:
    """A file's name and that of its folder, where there is one: two speakers' `001.wav` are two recordings."""
    return "/".join(path.rsplit("/", 2)[-2:])


References = Joined[str]
"""Texts."""


def reference_of(recording: dict[str, Any], given: References | None) -> str | None:
    """The text given for a recording; where none are given, the one that came with the audio."""
    reference: str | None = recording["reference"]
    return reference if given is None else given.text_of(recording)


def read_references(place: Place) -> References:
    """A file of texts: JSON lines, CSV, TSV, with `id`, `member` or a path column, and a text column.

    Raises:
        InputError: no such file, or no row has both.
    """

    def text_of(row: dict[str, Any]) -> str | None:
        text = next((row[name] for name in TEXT_COLUMNS if row.get(name) is not None), None)
        return None if text is None else str(text)

    return read_joined(place, "--references", text_of, f"a text column ({', '.join(TEXT_COLUMNS)})")


def read_joined(
    place: Place, option: str, value_of: Callable[[dict[str, Any]], Value | None], expected: str
) -> Joined[Value]:
    """What the rows of a file tell.

    Args:
        place: JSON lines, CSV or TSV, with `id`, `member` or a path column.
        option: that names it.
        value_of: of a row; None: nothing.
        expected: the columns that tell it, in words.

    Raises:
        InputError: no such file, or no row names a recording and tells something.
    """
    if not place.exists():
        raise InputError(f"{option} {place.url}: no such file; check the path")
    answers = Joined[Value]()
    entries = _entries(place)
    for number, row in read_rows(place):
        if isinstance(row, Note):
            continue
        if isinstance(row, BadRow):
            raise InputError(f"{option} {place.url}: row {number}: {row}")
        value = value_of(row)
        keys = {name: str(row[name]) for name in ("id", "member") if row.get(name)}
        path = next((row[name] for name in PATH_COLUMNS if isinstance(row.get(name), str)), None)
        if path is not None:
            entry = entries.get(number)
            keys.setdefault("id", entry.id if entry is not None else source_of(path))
            keys["source"] = entry.source if entry is not None else source_of(path)
            keys["name"] = _last_names(path)
        if value is not None and keys:
            answers.add(value, keys)
    if not len(answers):
        raise InputError(f"{option} {place.url}: expected rows with {expected} and an id, member or path column")
    return answers


def _entries(place: Place) -> dict[int, Entry]:
    """Rows as recordings of a manifest, so that a span's id can be told. Rows that are none are left out."""
    entries: dict[int, Entry] = {}
    numbers = [number for number, _ in read_rows(place)]
    for number, entry in zip(numbers, read_manifest(place, None), strict=True):
        if isinstance(entry, Entry) and entry.reason is None:
            entries[number] = entry._replace(source=source_of(entry.source))
    return entries
