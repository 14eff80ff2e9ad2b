"""Folders of tables whose log says which rows hold: reading their Parquet files would bring back what was withdrawn."""

from __future__ import annotations

from collections.abc import Iterable

from audiomill.errors import InputError
from audiomill.storage.fs import Place
from audiomill.storage.urls import folder_of

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
