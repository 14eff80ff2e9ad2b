"""audiomill score: WER and CER of an output against reference texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from audiomill.errors import InputError
from audiomill.sources.references import References, read_references, reference_of
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import to_bytes
from audiomill.tables.chosen import check_chosen, transcript_parts
from audiomill.text.scripts import is_unspaced
from audiomill.text.wer import NO_ERRORS, Errors, score_pair
from audiomill_jobs.options import JsonMapping, WithExamples, transcript_option

EXAMPLES = """\
Examples:
  audiomill score out/ --references references.csv
  audiomill score out/                     (reference texts from the manifest or shards)
"""
NUM_WORST = 5
COUNTS = ("substitutions", "deletions", "insertions")
NAMES = ("id", "source", "member", "language")
SCORES = pa.schema(
    [(name, pa.string()) for name in (*NAMES, "reference", "hypothesis")]
    + [(name, pa.float64()) for name in ("wer", "cer")]
    + [(name, pa.int64()) for name in ("num_words", *COUNTS)]
)


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--references", metavar="FILE", help="JSON lines, CSV or TSV with a text column and an id, member or path column."
)
@transcript_option
@click.option("--language", metavar="CODE", help="Normalise as this language [default: each recording's own].")
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def score(
    output: str,
    references: str | None,
    transcript: int,
    language: str | None,
    storage_options: dict[str, Any] | None,
) -> None:
    """Score transcripts: WER, CER, insertions, deletions, substitutions.

    References are joined by id, source or file name, never by position. English is normalised as the Whisper
    paper does it, other languages with its basic normaliser, which keeps combining marks; where a language puts no
    blanks between words (Chinese, Japanese, Thai, ...), each letter counts as a word. Saves OUTPUT/scores.parquet and scores.json.
    """
    place = Place(output, storage_options or {})
    nothing = InputError(f"{output}: no finished recordings; expected the --output of a transcribe run")
    if not ledger.done_parts(place):
        raise nothing
    check_chosen(place, transcript)
    given = read_references(Place(references, storage_options or {})) if references else None
    result = _Scores()
    for _, part in transcript_parts(place, "recordings", [*NAMES, "text", "reference"], transcript):
        result.take(part.to_pylist(), given, language)
    if not result.num_recordings:
        raise nothing
    if not result.num_texts:
        raise InputError(f"{output}: holds no text to score; expected the --output of a transcribe run")
    if not result.tables:
        if given is not None:
            raise InputError(
                f"{references}: {len(given)} texts, none of a recording here by id, member, path or file name"
            )
        raise InputError(
            f"{output}: no recording has a reference; give --references FILE with an id, member or path column"
        )
    total = result.total()
    place.join("scores.parquet").write(to_bytes(pa.concat_tables(result.tables)))
    place.join("scores.json").write(json.dumps(total, indent=1).encode())
    _show(total, result, 0 if given is None else given.num_unused)


Scored = tuple[dict[str, Any], str, Errors, Errors]


@dataclass
class _Scores:
    """Recordings with a reference, part after part. `tables`: their scores; `worst`: a few."""

    num_recordings: int = 0
    num_texts: int = 0
    num_spaced: int = 0
    num_unspaced: int = 0
    words: Errors = NO_ERRORS
    characters: Errors = NO_ERRORS
    tables: list[pa.Table] = field(default_factory=list)
    worst: list[Scored] = field(default_factory=list)

    @property
    def word(self) -> str:
        """What counts as one."""
        kinds = [kind for kind, count in (("word", self.num_spaced), ("letter", self.num_unspaced)) if count]
        return " or ".join(kinds) or "word"

    @property
    def num_scored(self) -> int:
        return sum(table.num_rows for table in self.tables)

    def take(self, recordings: list[dict[str, Any]], given: References | None, language: str | None) -> None:
        """One part of the recordings table."""
        self.num_recordings += len(recordings)
        self.num_texts += sum(recording["text"] is not None for recording in recordings)
        scored = list(_scored(recordings, given, language))
        if scored:
            unspaced = sum(is_unspaced(reference) for _, reference, _, _ in scored)
            self.num_unspaced, self.num_spaced = self.num_unspaced + unspaced, self.num_spaced + len(scored) - unspaced
            self.words = sum((words for _, _, words, _ in scored), self.words)
            self.characters = sum((characters for _, _, _, characters in scored), self.characters)
            self.tables.append(pa.Table.from_pylist([_row(*each) for each in scored], schema=SCORES))
            self.worst = sorted([*self.worst, *scored], key=lambda each: -each[2].rate)[:NUM_WORST]

    def total(self) -> dict[str, Any]:
        return {
            "num_recordings": self.num_scored,
            "wer": self.words.rate,
            "cer": self.characters.rate,
            "num_words": self.words.num_reference,
            "word": self.word,
            **{name: getattr(self.words, name) for name in COUNTS},
        }


def _scored(recordings: list[dict[str, Any]], given: References | None, language: str | None) -> Iterator[Scored]:
    for recording in recordings:
        reference = reference_of(recording, given)
        if reference is not None:
            errors = score_pair(reference, recording["text"], language or recording["language"])
            yield recording, reference, *errors


def _row(recording: dict[str, Any], reference: str, words: Errors, characters: Errors) -> dict[str, Any]:
    return {
        **{name: recording[name] for name in NAMES},
        "reference": reference,
        "hypothesis": recording["text"],
        "wer": words.rate,
        "cer": characters.rate,
        "num_words": words.num_reference,
        **{name: getattr(words, name) for name in COUNTS},
    }


def _show(total: dict[str, Any], scores: _Scores, num_unused: int) -> None:
    num_without = scores.num_recordings - scores.num_scored
    click.echo(
        f"WER {100 * total['wer']:.2f}%  CER {100 * total['cer']:.2f}%  "
        f"({total['num_words']} words in {total['num_recordings']} recordings: "
        f"{total['substitutions']} substituted, {total['deletions']} deleted, {total['insertions']} inserted)"
    )
    if "letter" in total["word"]:
        click.echo(
            "languages that put no blanks between words: each letter counts as a word, so WER is a character error rate"
        )
    if num_without or num_unused:
        click.echo(
            f"{num_without} recordings without a reference, {num_unused} references without a transcript (rejected or not in this output)"
        )
    table = Table("WER %", "recording", "reference", "transcript", title="worst recordings", title_justify="left")
    for recording, reference, words, _ in scores.worst:
        name = (recording["member"] or recording["source"]).rsplit("/", 1)[-1]
        table.add_row(f"{100 * words.rate:.1f}", name, _short(reference), _short(recording["text"]))
    Console().print(table)


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"
