"""Texts that a folder keeps apart from its audio: LibriSpeech's `.trans.txt`, the manifests of NeMo's tarred datasets and
the cuts of a Lhotse shar.

Sources: openslr.org/12; docs.nvidia.com/nemo "Tarred Datasets"; lhotse.readthedocs.io "Lhotse Shar".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from audiomill.errors import InputError
from audiomill.sources.delimited import TEXT_COLUMNS
from audiomill.sources.entry import Entry, stem
from audiomill.sources.lhotse import supervision_text
from audiomill.sources.manifest_row import BadRow, Note, first_of, number_of
from audiomill.sources.manifests import is_manifest, read_rows
from audiomill.storage.fs import Place
from audiomill.storage.urls import folder_of
from audiomill.text.encodings import TRANSCRIPT_SUFFIXES, UnknownEncoding, transcript_lines

TABLE_MARKS = {"/_delta_log/": "Delta", ".metadata.json": "Iceberg", "/.hoodie/": "Hudi"}
"""Names of files that only such a table has."""


def check_no_table(place: Place, urls: Iterable[str]) -> None:
    """Raises InputError for files of a Delta, Iceberg or Hudi table: its log says which of their rows hold."""
    names = list(urls)
    result = next((name for name in names if any(mark in name for mark in TABLE_MARKS)), None)
    folders = {folder_of(name) for name in names if name.endswith(".parquet")} if result is None else set()
    for folder in folders:
        if Place(f"{folder}/_delta_log", place.options).exists():
            result = f"{folder}/_delta_log/"
    if result is not None:
        mark = next(mark for mark in TABLE_MARKS if mark in result)
        raise InputError(
            f"{result.partition(mark)[0]}: is a {TABLE_MARKS[mark]} table, whose log says which rows are withdrawn; "
            "write its current version as plain Parquet and name that"
        )


SHARD_NUMBER = re.compile(r"(\d+)(?:\.tar|\.jsonl)(?:\.gz)?$")
"""The last number in the name of a shard, or of the file with its texts."""
SHAR_CUTS = re.compile(r"/cuts\.\d+\.jsonl(\.gz)?$")


class FolderTexts:
    """Texts by recording, read when a recording is there that they could belong to.

    Attributes:
        files: those that hold such texts; they are no audio and are not ignored.
        notes: on what could not be read.
    """

    def __init__(self, urls: Sequence[str], options: dict[str, Any]) -> None:
        self._options = options
        self.files: set[str] = set()
        self.notes: list[str] = []
        self._by_stem: dict[str, str] = {}
        self._by_member: dict[tuple[str, str], dict[str, Any]] = {}
        tars = [url for url in urls if url.endswith((".tar", ".tar.gz"))]
        for url in urls:
            if url.endswith(TRANSCRIPT_SUFFIXES):
                self._read_transcripts(url)
            elif tars and is_manifest(url):
                self._read_rows(url, tars)

    def of_file(self, entry: Entry) -> Entry:
        """A file's entry with its text, where it has none of its own."""
        text = self._by_stem.get(stem(entry.source))
        return entry if text is None or entry.reference is not None else entry._replace(reference=text)

    def of_member(self, entry: Entry) -> Entry:
        """A tar member's entry with what its row says."""
        row = self._by_member.get((entry.source, stem(entry.member.rsplit("/", 1)[-1])))
        if row is None or entry.reference is not None:
            return entry
        text, language = first_of(row, TEXT_COLUMNS), first_of(row, ("language", "lang"))
        return entry._replace(
            reference=None if text is None else str(text),
            language=entry.language or (str(language) if language else None),
            duration_s=entry.duration_s if entry.duration_s is not None else _seconds(row),
        )

    def _read_transcripts(self, url: str) -> None:
        try:
            lines = transcript_lines(Place(url, self._options).read())
        except UnknownEncoding as unknown:
            self.notes.append(f"{url}: its texts are left out: {unknown}")
            return
        self.files.add(url)
        folder = url.rpartition("/")[0]
        self._by_stem |= {f"{folder}/{name}": text for name, text in lines.items()}

    def _read_rows(self, url: str, tars: Sequence[str]) -> None:
        """Rows of a manifest, where they are those of members of the tars beside it."""
        is_shar = SHAR_CUTS.search(url) is not None
        folder = url.rpartition("/")[0]
        beside = [tar for tar in tars if tar.rpartition("/")[0] == folder]
        try:
            for _, row in read_rows(Place(url, self._options)):
                if isinstance(row, (BadRow, Note)):
                    continue
                if not is_shar and "shard_id" not in row:
                    return
                self.files.add(url)
                number = _number(url) if is_shar else _whole(row["shard_id"])
                name = str(row.get("id")) if is_shar else str(row.get("audio_filepath") or "").rsplit("/", 1)[-1]
                fields = _fields_of_cut(row) if is_shar else row
                for tar in beside:
                    if _number(tar) == number or (len(beside) == 1 and not is_shar):
                        self._by_member[tar, name if is_shar else stem(name)] = fields
        except (InputError, OSError, ValueError) as error:
            self.notes.append(f"{url}: its texts are left out: {error}")


def _fields_of_cut(row: dict[str, Any]) -> dict[str, Any]:
    text, language = supervision_text(each for each in row.get("supervisions") or () if isinstance(each, dict))
    return {"text": text, "language": language, "duration": row.get("duration")}


def _number(url: str) -> int | None:
    match = SHARD_NUMBER.search(url)
    return None if match is None else int(match.group(1))


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or str(value).isdigit() else None


def _seconds(row: dict[str, Any]) -> float | None:
    try:
        return number_of(row, "duration")
    except BadRow:
        return None
