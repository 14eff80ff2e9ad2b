"""audiomill score: WER and CER of an output against reference texts."""

from __future__ import annotations

import json
from typing import Any

import click
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from audiomill.errors import InputError
from audiomill.jobs.options import JsonMapping, WithExamples
from audiomill.sources.references import References, read_references
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import to_bytes
from audiomill.text.wer import NO_ERRORS, Errors, score_pair

EXAMPLES = """\
Examples:
  audiomill score out/ --references references.csv
  audiomill score out/                     (reference texts from the manifest or shards)
"""
NUM_WORST = 5
COUNTS = ("substitutions", "deletions", "insertions")


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--references", metavar="FILE", help="JSON lines, CSV or TSV with a text column and an id, member or path column."
)
@click.option("--language", metavar="CODE", help="Normalise as this language [default: each recording's own].")
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def score(output: str, references: str | None, language: str | None, storage_options: dict[str, Any] | None) -> None:
    """Score transcripts: WER, CER, insertions, deletions, substitutions.

    References are joined by id, source or file name, never by position. English is normalised as the Whisper
    paper does it, other languages with its basic normaliser. Saves OUTPUT/scores.parquet and scores.json.
    """
    place = Place(output, storage_options or {})
    recordings = ledger.tables(place, "recordings").to_pylist()
    if not recordings:
        raise InputError(f"{output}: no finished recordings; expected the --output of a transcribe run")
    if recordings and all(recording["text"] is None for recording in recordings):
        raise InputError(f"{output}: holds no text to score; expected the --output of a transcribe run")
    given = read_references(Place(references, storage_options or {})) if references else None
    scored, unused = _scored(recordings, given, language)
    if not scored:
        raise InputError(
            f"{output}: no recording has a reference; give --references FILE with an id, member or path column"
        )
    total = _total(scored)
    place.join("scores.parquet").write(to_bytes(pa.Table.from_pylist([_row(*each) for each in scored])))
    place.join("scores.json").write(json.dumps(total, indent=1).encode())
    _show(total, scored, len(recordings) - len(scored), unused)


Scored = tuple[dict[str, Any], str, Errors, Errors]


def _scored(
    recordings: list[dict[str, Any]], given: References | None, language: str | None
) -> tuple[list[Scored], int]:
    """Recordings with a reference, and how many references fit no recording."""
    found: list[Scored] = []
    used: set[int] = set()
    for recording in recordings:
        if given is None:
            reference = recording["reference"]
        else:
            number = given.find(recording)
            reference = None if number is None else given.text(number)
            used |= set() if number is None else {number}
        if reference is not None:
            found.append(
                (recording, reference, *score_pair(reference, recording["text"], language or recording["language"]))
            )
    return found, 0 if given is None else len(given) - len(used)


def _total(scored: list[Scored]) -> dict[str, Any]:
    words = sum((words for _, _, words, _ in scored), NO_ERRORS)
    characters = sum((characters for _, _, _, characters in scored), NO_ERRORS)
    return {
        "num_recordings": len(scored),
        "wer": words.rate,
        "cer": characters.rate,
        "num_words": words.num_reference,
        **{name: getattr(words, name) for name in COUNTS},
    }


def _row(recording: dict[str, Any], reference: str, words: Errors, characters: Errors) -> dict[str, Any]:
    return {
        **{name: recording[name] for name in ("id", "source", "member", "language")},
        "reference": reference,
        "hypothesis": recording["text"],
        "wer": words.rate,
        "cer": characters.rate,
        "num_words": words.num_reference,
        **{name: getattr(words, name) for name in COUNTS},
    }


def _show(total: dict[str, Any], scored: list[Scored], num_without: int, num_unused: int) -> None:
    click.echo(
        f"WER {100 * total['wer']:.2f}%  CER {100 * total['cer']:.2f}%  "
        f"({total['num_words']} words in {total['num_recordings']} recordings: "
        f"{total['substitutions']} substituted, {total['deletions']} deleted, {total['insertions']} inserted)"
    )
    if num_without or num_unused:
        click.echo(
            f"{num_without} recordings without a reference, {num_unused} references without a transcript (rejected or not in this output)"
        )
    table = Table("WER %", "recording", "reference", "transcript", title="worst recordings", title_justify="left")
    for recording, reference, words, _ in sorted(scored, key=lambda each: -each[2].rate)[:NUM_WORST]:
        name = (recording["member"] or recording["source"]).rsplit("/", 1)[-1]
        table.add_row(f"{100 * words.rate:.1f}", name, _short(reference), _short(recording["text"]))
    Console().print(table)


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"
