"""Rows of CSV and TSV files, and of LJSpeech's metadata.csv. A quote that is never closed costs no row."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from audiomill.errors import InputError
from audiomill.sources.entry import AUDIO_SUFFIXES, suffix
from audiomill.sources.manifest_row import BadRow, Note

PATH_COLUMNS = (
    "audio_filepath",
    "audio_path",
    "audio",
    "path",
    "file_name",
    "filename",
    "file",
    "filepath",
    "url",
    "source",
    "wav",
    "wav_filename",
    "wav_path",
    "audio_file",
)
ID_COLUMNS = ("id", "member")
"""Name a recording in a references file; a manifest of inputs needs a path."""
TEXT_COLUMNS = (
    "text",
    "sentence",
    "transcription",
    "transcript",
    "reference",
    "normalized_text",
    "wrd",
    "txt",
    "target",
)
START_COLUMNS = (
    "offset", "start", "start_s", "start_time", "begin_time", "begin", "start_seconds",
    "offset_ms", "start_ms", "start_time_ms", "begin_ms",
)  # fmt: skip
END_COLUMNS = ("end", "end_s", "end_time", "stop", "stop_s", "end_seconds", "end_ms", "end_time_ms", "stop_ms")
DURATION_COLUMNS = ("duration", "duration_s", "dur", "duration_seconds", "duration_ms")
"""Times in seconds, or h:mm:ss; those that end in _ms in milliseconds."""
LANGUAGE_COLUMNS = ("language", "lang", "source_lang", "locale")
CHANNEL_COLUMNS = ("channel", "channel_selector")
_KNOWN = frozenset(
    [
        *PATH_COLUMNS,
        *ID_COLUMNS,
        *TEXT_COLUMNS,
        *START_COLUMNS,
        *END_COLUMNS,
        *DURATION_COLUMNS,
        *LANGUAGE_COLUMNS,
        *CHANNEL_COLUMNS,
    ]
)
"""Known whatever the case of their letters."""
DELIMITERS = (",", ";", "\t", "|")
"""In the order in which they are tried; spreadsheets write semicolons where commas are decimal."""
csv.field_size_limit(1 << 30)
"""Texts may be long; the module's own limit is 128 KiB."""
Numbered = tuple[int, "dict[str, Any] | BadRow | Note"]


class _Lines:
    """Lines of a text, numbered, of which some can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self.taken.append(line)
        return line

    def keep_first(self) -> str:
        """The first line taken since `taken` was emptied; the others are given back."""
        first, *others = self.taken
        self._lines = chain(others, self._lines)
        self.number -= len(others)
        self.taken = [first]
        return first


def delimited_rows(text: Iterable[str], url: str, is_tab: bool) -> Iterator[Numbered]:
    """Rows with the numbers of their lines.

    Args:
        text: lines with their ends.
        url: of the file, for errors.
        is_tab: it is named as a TSV.

    Raises:
        InputError: no column names a recording.
    """
    lines = _Lines(_with_line_feeds(text))
    first = next(lines, "")
    delimiter = _delimiter(first, is_tab)
    if delimiter is None:
        if first.count("|") in (1, 2):
            yield from _ljspeech(chain([first], lines))
            return
        raise InputError(
            f"{url}: expected a column named one of {', '.join(PATH_COLUMNS)}; got {first.strip()[:200] or 'nothing'}"
        )
    names = _columns(first, delimiter)
    is_spaced = f"{delimiter} " in first and delimiter != "\t"
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    while True:
        lines.taken = []
        try:
            fields = next(
                csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True, skipinitialspace=is_spaced), None
            )
            is_swallowing = len(lines.taken) > 1 and any(_begins_a_row(line, delimiter) for line in lines.taken[1:])
        except csv.Error:
            fields, is_swallowing = None, True
        if not lines.taken:
            return
        if is_swallowing:
            fields, note = _as_it_stands(lines, delimiter, url)
            if note is not None:
                yield lines.number, note
        if fields:
            yield lines.number, _row(names, fields, is_tab=delimiter == "\t")


def _with_line_feeds(text: Iterable[str]) -> Iterator[str]:
    """Old files of the Macintosh end their lines with CR alone."""
    for line in text:
        yield from line.splitlines(keepends=True) if "\r" in line and not line.endswith("\n") else [line]


def _delimiter(header: str, is_tab: bool) -> str | None:
    """The one by which the header has a column that names a recording; None: it has none."""
    tried = ("\t", *DELIMITERS) if is_tab else DELIMITERS
    known = {*PATH_COLUMNS, *ID_COLUMNS}
    return next((each for each in tried if not known.isdisjoint(_columns(header, each))), None)


def _columns(header: str, delimiter: str) -> list[str]:
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    return [name.lower() if name.lower() in _KNOWN else name for name in names]


def _begins_a_row(line: str, delimiter: str) -> bool:
    """Whether a line inside a quoted text looks like a row of its own."""
    return any(suffix(field.strip().strip('"')) in AUDIO_SUFFIXES for field in line.split(delimiter)[:-1])


def _as_it_stands(lines: _Lines, delimiter: str, url: str) -> tuple[list[str] | None, Note | None]:
    """Fields of one line whose quotes are not those of a CSV, and what is said of it."""
    first = lines.keep_first().rstrip("\r\n")
    if first.count('"') % 2 == 0:  # closed, and something behind it
        return next(csv.reader([first], delimiter=delimiter), None), None
    fields = next(csv.reader([first], delimiter=delimiter, quoting=csv.QUOTE_NONE), None)
    return fields, Note(
        f"{url}: line {lines.number}: a quote is opened and never closed; the line is read as it stands"
    )


def _row(names: list[str], fields: list[str], is_tab: bool) -> dict[str, Any] | BadRow:
    values = map(_unquoted, fields) if is_tab else fields
    return {name: value for name, value in zip(names, values, strict=False) if value != ""}


def _unquoted(value: str) -> str:
    """Tables with tabs have quotes as they are, but where a writer has doubled those inside."""
    inside = value[1:-1]
    is_quoted = len(value) > 2 and value[0] == value[-1] == '"' and '""' in inside
    return inside.replace('""', '"') if is_quoted and '"' not in inside.replace('""', "") else value


def _ljspeech(lines: Iterable[str]) -> Iterator[Numbered]:
    """`id|text|normalised text` without a header, in the folder of a folder wavs/. Source: keithito.com/LJ-Speech-Dataset."""
    for number, line in enumerate(lines, 1):
        name, *texts = line.rstrip("\r\n").split("|")
        if name:
            yield number, {"audio_filepath": f"wavs/{name}.wav", "text": texts[-1] if texts else ""}
