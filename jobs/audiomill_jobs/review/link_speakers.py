"""audiomill link-speakers: the same person across recordings; names, corrections, and forgetting."""

from __future__ import annotations

import json
from typing import Any

import click

from audiomill.errors import UsageError
from audiomill.speakers.linking import LINK_DISTANCE
from audiomill.storage.fs import Place
from audiomill_jobs.options import JsonMapping, WithExamples

EXAMPLES = """\
Examples:
  audiomill transcribe shows/ --speakers auto --save-speaker-embeddings --output out/
  audiomill link-speakers out/
  audiomill link-speakers out/ --name host=host.wav --name guest=v000007
  audiomill link-speakers out/ --merge v000003,v000012
  audiomill link-speakers out/ --forget v000004 --words

Vectors of voices are biometric data (GDPR article 9, BIPA): keep them only where the law and the people allow it.
"""


@click.command(cls=WithExamples, epilog=EXAMPLES)
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--name", "names", metavar="NAME=WHO", multiple=True, help="Name a voice: its id, or a recording of it alone."
)
@click.option("--merge", metavar="ID,ID", help="These voices are one person: the first id stays.")
@click.option("--split", metavar="ID", help="This voice is two people: part it where it is least alike.")
@click.option("--forget", metavar="ID", help="Remove a voice for good: id, name, vectors; reruns do not bring it back.")
@click.option("--words", is_flag=True, help="With --forget: what it said, too.")
@click.option(
    "--distance",
    type=click.FloatRange(0, 2, min_open=True),
    default=LINK_DISTANCE,
    show_default=True,
    help="Cosine distance below which speakers of two recordings are one voice.",
)
@click.option("--json", "as_json", is_flag=True, help="List as JSON lines.")
@click.option("--storage-options", type=JsonMapping(), metavar="JSON", default=None, help="fsspec options as JSON.")
def link_speakers(
    output: str,
    names: tuple[str, ...],
    merge: str | None,
    split: str | None,
    forget: str | None,
    words: bool,
    distance: float,
    as_json: bool,
    storage_options: dict[str, Any] | None,
) -> None:
    """Find the same person in all recordings of an output.

    OUTPUT is the --output of a run with --speakers auto --save-speaker-embeddings. Every speaker is linked to a voice, in the order of the plan;
    ids once given stay when recordings are added. Without options: link what is new, and list.
    """
    from audiomill.voices import speaker_linking as steps

    place = Place(output, storage_options or {})
    if words and forget is None:
        raise UsageError("--words says that the words of --forget ID go too: add --forget ID")
    index = steps.updated(place, distance)
    if merge is not None:
        ids = [each.strip() for each in merge.split(",") if each.strip()]
        if len(set(ids)) < 2:
            raise UsageError(f"--merge {merge}: expected two ids or more, by comma, such as v000003,v000012")
        steps.merge(place, index, ids)
    if split is not None:
        click.echo(f"{split} is {split} and {steps.split(place, index, split)} now", err=True)
    for each in names:
        voice_id, is_given, who = each.partition("=")
        if not (voice_id.strip() and is_given and who.strip()):
            raise UsageError(f"--name {each}: expected NAME=ID or NAME=RECORDING, such as host=host.wav")
        result = who if who in index.voices.ids else _voices_in(place, index, who, distance)
        steps.name(place, index, result, voice_id.strip())
    if forget is not None:
        count = steps.forget(place, index, forget, words)
        also = "; report.html and export/, which held its words, are removed" if words else ""
        click.echo(f"{forget} is forgotten, of {count} recording{'s' * (count != 1)}{also}", err=True)
    for row in steps.voice_rows(place, index):
        name = f"  {row['name']}" if row["name"] else ""
        line = f"{row['voice']}  {row['speech_s']:9.1f} s  {row['num_recordings']:5} recordings{name}"
        click.echo(json.dumps(row, ensure_ascii=False) if as_json else line)


def _voices_in(place: Place, index: Any, clip: str, distance: float) -> str:
    """The voice of a recording of one person.

    Raises:
        UsageError: nobody sounds like it.
    """
    from audiomill.voices.sample_voice import voice_vector

    voice, near = index.voices.nearest(voice_vector(place, clip), set())
    if voice is None or 1.0 - near > distance:
        nearest = "there are none" if voice is None else f"the nearest is {voice}, at a distance of {1.0 - near:.2f}"
        raise UsageError(f"--name: nobody in {place.url} sounds like {clip} (within {distance:g}; {nearest})")
    return str(voice)
