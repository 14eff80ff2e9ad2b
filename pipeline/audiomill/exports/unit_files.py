"""Codes as lines of units, for language models: in one file, or one for each split."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from audiomill.errors import InputError, UsageError
from audiomill.exports.splits import shares_of, split_of_recordings
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.text.units import UnitLine, unit_lines


class Units(NamedTuple):
    """`ids`: recording id and a tab before each line; `is_tagged`: see `audiomill.text.units`; `durations`: a second file
    with the frames of each unit; `split`, `by`, `seed`: see `audiomill.exports.splits`."""

    quantizer: str | None
    ids: bool
    is_tagged: bool
    durations: bool
    split: str | None
    by: str
    seed: int


def code_lines(output: Place, units: Units) -> Iterator[UnitLine]:
    """Part by part: a corpus may be larger than memory.

    Raises:
        InputError: there are no codes, or none of the quantizer.
    """
    if not output.join("codes").names():
        raise InputError(f"{output.url}: no codes; expected the --output of an encode run")
    count = 0
    parts = zip(ledger.each_part(output, "codes"), ledger.each_part(output, "segments"), strict=True)
    for (_, codes), (_, segments) in parts:
        for line in unit_lines(codes, segments, units.quantizer, units.is_tagged):
            count += 1
            yield line
    if count == 0:
        results = sorted(set(ledger.tables(output, "codes", ["quantizer"]).column("quantizer").to_pylist()))
        raise InputError(
            f"{output.url}: no codes of {units.quantizer!r}; there are those of {', '.join(results) or 'nothing yet'}"
        )


def format_line(line: UnitLine, text: str, ids: bool) -> str:
    """A line of a file."""
    return f"{line.recording_id}\t{text}\n" if ids else f"{text}\n"


def write_units(output: Place, to: Place, units: Units) -> dict[str, int]:
    """Writes FILE, or FOLDER/train.txt, FOLDER/dev.txt ... where there are splits; durations stand in a file beside.

    Returns:
        Lines by file.

    Raises:
        UsageError, InputError: see `code_lines` and `audiomill.exports.splits.split_of_recordings`.
    """
    if units.split is None:
        places = {"": to}
        split_of: dict[str, str] = {}
    else:
        if to.names():
            raise UsageError(f"--to {to.url}: is not empty; name a new folder for the splits, or empty it")
        shares = shares_of(units.split)
        places = {name: to.join(f"{name}.txt") for name in shares}
        split_of = split_of_recordings(output, shares, units.by, units.seed)
    counts = dict.fromkeys((place.url for place in places.values()), 0)
    with contextlib.ExitStack() as stack:
        files = {name: _Files(place, units, stack) for name, place in places.items()}
        for line in code_lines(output, units):
            name = split_of.get(line.recording_id, "")
            files[name].write(line)
            counts[places[name].url] += 1
    return counts


class _Files:
    """Units of a split, and their durations."""

    def __init__(self, place: Place, units: Units, stack: contextlib.ExitStack) -> None:
        self._ids = units.ids
        self._units: Any = stack.enter_context(place.open_for_writing())
        self._durations: Any = None
        if units.durations:
            beside = Place(place.url.removesuffix(".txt") + ".durations.txt", place.options)
            self._durations = stack.enter_context(beside.open_for_writing())

    def write(self, line: UnitLine) -> None:
        self._units.write(format_line(line, line.units, self._ids).encode())
        if self._durations is not None:
            self._durations.write(format_line(line, line.durations, self._ids).encode())
