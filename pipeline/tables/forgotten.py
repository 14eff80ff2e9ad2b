"""Voices that somebody asked to forget: what is taken out of the tables, and kept out when a part is written again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from audiomill import schema
from audiomill.storage.fs import Place
from audiomill.tables.rows import in_time_order, joined_text
from audiomill.tables.transcripts import TRANSCRIPTS
from audiomill.text.scripts import joined

Forgotten = Mapping[tuple[str, str], bool]
"""(recording, speaker) -> whether the words go too. Nothing of a voice is in it."""


def forgotten_of(output: Place) -> dict[tuple[str, str], bool]:
    """What an output was told to forget."""
    place = output.join("voices", "forgotten.json")
    if not place.exists():
        return {}
    return {(recording, speaker): words for recording, speaker, words in json.loads(place.read())}


def remember(output: Place, forgotten: Forgotten) -> None:
    """Keeps it for reruns."""
    rows = [[*key, words] for key, words in sorted(forgotten.items())]
    output.join("voices", "forgotten.json").write(json.dumps(rows, indent=1).encode())


def without_forgotten(tables: dict[str, pa.Table], forgotten: Forgotten) -> dict[str, pa.Table]:
    """Tables of a part without the vectors of forgotten speakers, and without their words where that was asked."""
    names = set(tables["recordings"].column("id").to_pylist())
    mine = {key: words for key, words in forgotten.items() if key[0] in names}
    if not mine:
        return tables
    found = dict(tables)
    for name in ("speakers", "turns"):
        if name in tables:
            rows = [_without_vector(row, mine) for row in tables[name].to_pylist()]
            found[name] = pa.Table.from_pylist(rows, schema=tables[name].schema)
    silent = {key for key, words in mine.items() if words}
    return _without_words(found, silent) if silent else found


def _without_vector(row: dict[str, Any], forgotten: Forgotten) -> dict[str, Any]:
    return row | {"vector": None} if (row["recording_id"], row["speaker"]) in forgotten else row


def _without_words(tables: dict[str, pa.Table], silent: set[tuple[str, str]]) -> dict[str, pa.Table]:
    segments = [_silenced(row, silent) for row in tables["segments"].to_pylist()]
    by_recording: dict[str, list[dict[str, Any]]] = {}
    for row in segments:
        by_recording.setdefault(row["recording_id"], []).append(row)
    touched = {recording for recording, _ in silent}
    recordings = [
        row | {"text": joined_text(in_time_order(by_recording.get(row["id"], ())))}
        if row["id"] in touched and row["text"] is not None
        else row
        for row in tables["recordings"].to_pylist()
    ]
    found = {
        **tables,
        "segments": pa.Table.from_pylist(segments, schema=schema.SEGMENTS),
        "recordings": pa.Table.from_pylist(recordings, schema=schema.RECORDINGS),
    }
    if TRANSCRIPTS.name in tables:
        speaker_of = {row["id"]: row["speaker"] for row in segments}
        others = [
            row | {"text": "", "words": None if row["words"] is None else []}
            if (row["recording_id"], speaker_of.get(row["segment_id"])) in silent
            else row
            for row in tables[TRANSCRIPTS.name].to_pylist()
        ]
        found[TRANSCRIPTS.name] = pa.Table.from_pylist(others, schema=tables[TRANSCRIPTS.name].schema)
    return found


def _silenced(row: dict[str, Any], silent: set[tuple[str, str]]) -> dict[str, Any]:
    """A segment without the words of a speaker; what cannot be told apart goes with them."""
    recording = row["recording_id"]
    gone = {"phrases": None, "first_text": None, "nbest": None}
    if row["words"] is None:
        return row | {"text": "", **gone} if (recording, row["speaker"]) in silent else row
    kept = [word for word in row["words"] if (recording, word["speaker"]) not in silent]
    if len(kept) == len(row["words"]):
        return row
    return row | {"words": kept, "text": joined([word["word"].strip() for word in kept]), **gone}
