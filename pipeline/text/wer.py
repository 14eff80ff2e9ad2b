"""Word and character error rates, with the counts behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

from pipeline.text.normalize import normalizer


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Edits that turn a reference into a hypothesis."""

    num_reference: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def rate(self) -> float:
        """Edits per reference unit; insertions into an empty reference count as one each."""
        return (self.substitutions + self.deletions + self.insertions) / max(1, self.num_reference)

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            num_reference=self.num_reference + other.num_reference,
            substitutions=self.substitutions + other.substitutions,
            deletions=self.deletions + other.deletions,
            insertions=self.insertions + other.insertions,
        )


NO_ERRORS = Errors(num_reference=0, substitutions=0, deletions=0, insertions=0)


def score_pair(reference: str, hypothesis: str, language: str | None) -> tuple[Errors, Errors]:
    """Word and character errors of one text after normalisation; blanks do not count as characters.

    >>> words, _ = score_pair("Mr. Smith's colour", "mister smith is color", "en")
    >>> words.rate
    0.0
    """
    clean = normalizer(language)
    expected, got = clean(reference).split(), clean(hypothesis).split()
    return _errors(expected, got), _errors(list("".join(expected)), list("".join(got)))


def word_edits(expected: Sequence[str], got: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions that turn one list of words into the other."""
    found = _errors(expected, got)
    return found.substitutions + found.deletions + found.insertions


def _errors(expected: Sequence[str], got: Sequence[str]) -> Errors:
    """Minimal edits between two lists of units."""
    if not expected:
        return Errors(num_reference=0, substitutions=0, deletions=0, insertions=len(got))
    numbers: dict[str, int] = {}
    coded = [" ".join(str(numbers.setdefault(unit, len(numbers))) for unit in units) for units in (expected, got)]
    counted = jiwer.process_words(coded[0], coded[1])
    return Errors(
        num_reference=len(expected),
        substitutions=counted.substitutions,
        deletions=counted.deletions,
        insertions=counted.insertions,
    )
