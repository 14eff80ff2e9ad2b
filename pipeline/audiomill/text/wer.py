"""Word error rate and character error rate, with the counts behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

from audiomill.text.normalize import units_of
from audiomill.text.scripts import join_words


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
        return self.num_errors / max(1, self.num_reference)

    @property
    def num_errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            num_reference=self.num_reference + other.num_reference,
            substitutions=self.substitutions + other.substitutions,
            deletions=self.deletions + other.deletions,
            insertions=self.insertions + other.insertions,
        )


NO_ERRORS = Errors(num_reference=0, substitutions=0, deletions=0, insertions=0)


def score_pair(reference: str, hypothesis: str, language: str | None) -> tuple[Errors, Errors]:
    """Word and character errors of one text after normalisation; blanks do not count as characters. Each letter of a
    script without blanks is a word, see `audiomill.text.scripts.units`.

    >>> words, _ = score_pair("Mr. Smith's colour", "mister smith is color", "en")
    >>> words.rate
    0.0
    """
    expected, got = units_of(reference, language), units_of(hypothesis, language)
    return _errors(expected, got), _errors(list("".join(expected)), list("".join(got)))


def word_edits(expected: Sequence[str], got: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions that turn one list of words into the other."""
    return _errors(expected, got).num_errors


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


@dataclass(frozen=True, kw_only=True)
class PieceErrors:
    """Edits inside one piece of a hypothesis, and the words of the reference that stand against it."""

    num_edits: int
    num_reference: int
    reference: str

    @property
    def rate(self) -> float:
        return self.num_edits / max(1, self.num_reference)


def errors_by_piece(reference: str, pieces: Sequence[str], language: str | None) -> list[PieceErrors]:
    """Splits the edits between a reference and a hypothesis in pieces (its segments) over those pieces.

    Words that the hypothesis lacks count where they are missing; texts are normalised first.

    >>> [each.num_edits for each in errors_by_piece("a b c d e", ["a x", "c d e"], None)]
    [1, 0]
    """
    expected, parts = units_of(reference, language), [units_of(piece, language) for piece in pieces]
    owner = [number for number, words in enumerate(parts) for _ in words]
    edits, against = [0] * len(parts), [list[str]() for _ in parts]
    if not expected or not owner:
        return [PieceErrors(num_edits=len(words), num_reference=0, reference="") for words in parts]
    result = jiwer.process_words(" ".join(expected), " ".join(word for words in parts for word in words))
    for chunk in result.alignments[0]:
        mine = expected[chunk.ref_start_idx : chunk.ref_end_idx]
        owners = owner[chunk.hyp_start_idx : chunk.hyp_end_idx]
        owners = owners or [owner[min(chunk.hyp_start_idx, len(owner) - 1)]] * len(mine)
        for number, at in enumerate(owners):
            edits[at] += chunk.type != "equal"
            against[at] += mine[number : number + 1]
    return [
        PieceErrors(num_edits=count, num_reference=len(words), reference=join_words(words))
        for count, words in zip(edits, against, strict=True)
    ]
