"""Conditions on segments, such as `snr_db>=10, dnsmos_overall>=2.5, tag:Music<0.3`, over their own columns and the quality table."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiomill import schema
from audiomill.errors import InputError, UsageError
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import part_name, read_table
from audiomill.tables.quality_table import QUALITY
from audiomill.tables.voice_tables import voices_of, with_names

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "==": operator.eq, "=": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
CONDITION = re.compile(r"\s*(tag:[^<>=!]+|\w+)\s*(>=|<=|!=|==|=|>|<)\s*(.+?)\s*")
BETWEEN = re.compile(r",(?=\s*(?:tag:[^<>=!]+|\w+)\s*(?:>=|<=|!=|==|=|>|<))")
"""A comma before another condition: labels have commas, too."""
TAG, SPEAKER = "tag:", "speaker"
_NOT_COMPARED = ("words", "phrases", "failed_checks", "nbest", "tags", "id", "segment_id")
OF_SEGMENTS = tuple(name for name in schema.SEGMENTS.names if name not in _NOT_COMPARED)
OF_QUALITY = tuple(name for name in QUALITY.documented["quality"].names if name not in (*_NOT_COMPARED, "recording_id"))


@dataclass(frozen=True)
class Condition:
    """A column (or `tag:` and a label), a comparison, and what it is compared with."""

    column: str
    comparison: str
    value: float | str

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether a row meets it; what was not measured does not, and a sound that is not among the tags has no probability."""
        if self.column.startswith(TAG):
            if row.get("tags") is None:
                return False
            label = self.column.removeprefix(TAG).strip().lower()
            results = {each["label"].lower(): each["probability"] for each in row["tags"]}
            return COMPARISONS[self.comparison](results.get(label, 0.0), self.value)
        value = row.get(self.column)
        return value is not None and COMPARISONS[self.comparison](value, self.value)

    @property
    def is_of_quality(self) -> bool:
        return self.column in OF_QUALITY or self.column.startswith(TAG)

    def __str__(self) -> str:
        return (
            f"{self.column}{self.comparison}{self.value:g}"
            if isinstance(self.value, float)
            else f"{self.column}{self.comparison}{self.value}"
        )


def conditions_of(text: str | None) -> list[Condition]:
    """`snr_db>=10, speaker=S1` -> two conditions.

    Raises:
        UsageError: no comparison, or an unknown column.
    """
    return [_condition(each) for each in BETWEEN.split(text or "") if each.strip()]


def _condition(text: str) -> Condition:
    match = CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(f"--where {text.strip()}: expected a comparison such as snr_db>=10 or tag:Music<0.3")
    column, comparison, given = match.groups()
    column = column.strip()
    if not column.startswith(TAG) and column not in (*OF_SEGMENTS, *OF_QUALITY):
        known = ", ".join((*OF_QUALITY, "tag:LABEL", *OF_SEGMENTS))
        raise UsageError(f"--where {column}: no such column; expected one of {known}")
    try:
        value: float | str = float(given)
    except ValueError:
        value = given.strip("'\"")
    is_text = column in ("speaker", "language", "text", "first_pass_text", "recording_id")
    if is_text is not isinstance(value, str):
        if is_text:
            value = given
        else:
            raise UsageError(f"--where {text.strip()}: {column} is a number, {given!r} is none")
    if isinstance(value, str) and comparison not in ("=", "==", "!="):
        raise UsageError(f"--where {text.strip()}: texts are compared with = and !=")
    return Condition(column, comparison, value)


def check_measured(output: Place, conditions: Sequence[Condition]) -> None:
    """Raises InputError for conditions on what the output did not measure."""
    missing = [condition for condition in conditions if condition.is_of_quality]
    if not missing:
        return
    names = output.join("quality").names()
    if not names:
        raise InputError(f"--where {missing[0]}: {output.url} has no quality table; make it with --quality")
    tags = [each for each in missing if each.column.startswith(TAG)]
    if tags and all(read_table(output.join("quality", name), ["tags"]).column("tags").null_count for name in names[:1]):
        raise InputError(f"--where {tags[0]}: {output.url} has no tags; make it with --quality --tagger MODEL")


def with_quality(
    output: Place, part: int, segments: Sequence[dict[str, Any]], conditions: Sequence[Condition]
) -> Iterator[dict[str, Any]]:
    """Rows of segments with the columns of their quality, where a condition needs them."""
    sound: dict[str, dict[str, Any]] = {}
    if any(condition.is_of_quality for condition in conditions):
        rows = read_table(output.join("quality", part_name(part) + ".parquet")).to_pylist()
        sound = {row["segment_id"]: row for row in rows}
    for row in segments:
        yield {**sound.get(row["id"], {}), **row}


def meeting(
    output: Place, part: int, segments: Sequence[dict[str, Any]], conditions: Sequence[Condition]
) -> list[dict[str, Any]]:
    """The segments of a part that meet all conditions."""
    if not conditions:
        return list(segments)
    with_columns = with_quality(output, part, segments, conditions)
    voices = voices_of(output) if any(condition.column == SPEAKER for condition in conditions) else {}
    return [
        row
        for row, known in zip(segments, with_columns, strict=True)
        if all(_holds(each, known, with_names(known, voices)) for each in conditions)
    ]


def _holds(condition: Condition, row: Mapping[str, Any], named: Mapping[str, Any]) -> bool:
    """A speaker may be meant by number or by the name that somebody gave."""
    if condition.column != SPEAKER or row.get(SPEAKER) == named.get(SPEAKER):
        return condition.holds(row)
    either = all if condition.comparison == "!=" else any
    return either(condition.holds(each) for each in (row, named))


def check_met(output: Place, conditions: Sequence[Condition]) -> None:
    """Raises InputError where no segment of an output meets all conditions."""
    parts = ledger.each_part(output, "segments", ["id", *OF_SEGMENTS])
    if conditions and not any(meeting(output, part, rows.to_pylist(), conditions) for part, rows in parts):
        raise InputError(f"--where {', '.join(map(str, conditions))}: no segment of {output.url} meets this")
