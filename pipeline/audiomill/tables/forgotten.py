"""Voices that somebody asked to forget: what is taken out of the tables, and kept out when a part is written again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from audiomill import schema
from audiomill.config.fields import digest
from audiomill.models.checkpoint import makes_voices
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.tables.embeddings import EMBEDDINGS
from audiomill.tables.rows import in_time_order, joined_text
from audiomill.tables.transcripts import TRANSCRIPTS
from audiomill.text.scripts import join_words

EVERYBODY = "*"
"""In place of a speaker's name."""
Forgotten = Mapping[tuple[str, str], bool]
"""(recording, speaker) -> whether the words go too. Nothing of a voice is in it."""


def forgetting_settings(output: Place) -> str:
    """Digest of what an output was made with: names of speakers mean nothing under other settings."""
    return digest(ledger.claim_of(output).get("results", {}))


def forgotten_of(output: Place) -> dict[tuple[str, str], bool]:
    """What an output was told to forget. Where it was made anew with other settings, nobody knows which speaker that is now: then all
    speakers of the recording are."""
    place = output.join("voices", "forgotten.json")
    if not place.exists():
        return {}
    now, result = forgetting_settings(output), dict[tuple[str, str], bool]()
    for recording, speaker, words, settings in json.loads(place.read()):
        key = (recording, speaker if settings == now else EVERYBODY)
        result[key] = result.get(key, False) or words
    return result


def remember(output: Place, forgotten: Forgotten) -> None:
    """Keeps it for reruns."""
    now = forgetting_settings(output)
    rows = [[*key, words, now] for key, words in sorted(forgotten.items())]
    output.join("voices", "forgotten.json").write(json.dumps(rows, indent=1).encode())


def is_forgotten(forgotten: Forgotten, recording: str, speaker: str | None) -> bool:
    """Whether a speaker is, or everybody of the recording."""
    return speaker is not None and ((recording, speaker) in forgotten or (recording, EVERYBODY) in forgotten)


def without_forgotten(tables: dict[str, pa.Table], forgotten: Forgotten) -> dict[str, pa.Table]:
    """Tables of a part without the vectors of forgotten speakers, and without their words where that was asked."""
    names = set(tables["recordings"].column("id").to_pylist())
    mine = {key: words for key, words in forgotten.items() if key[0] in names}
    if not mine:
        return tables
    results = dict(tables)
    for name in ("speakers", "turns"):
        if name in tables:
            rows = [_without_vector(row, mine) for row in tables[name].to_pylist()]
            results[name] = pa.Table.from_pylist(rows, schema=tables[name].schema)
    if EMBEDDINGS.name in tables:
        results[EMBEDDINGS.name] = _without_their_vectors(tables, mine)
    silent = {key: True for key, words in mine.items() if words}
    return _without_words(results, silent) if silent else results


def _without_their_vectors(tables: dict[str, pa.Table], forgotten: Forgotten) -> pa.Table:
    """Embeddings of models of voices are vectors of voices: those of segments that a forgotten speaker speaks in go."""
    theirs = tables[EMBEDDINGS.name]
    models = {name for name in theirs.column("model").to_pylist() if makes_voices(name)}
    if not models:
        return theirs
    gone = {
        row["id"]
        for row in tables["segments"].select(["id", "recording_id", "speaker", "words"]).to_pylist()
        if any(is_forgotten(forgotten, row["recording_id"], who) for who in _speakers_in(row))
    }
    pairs = zip(theirs.column("segment_id").to_pylist(), theirs.column("model").to_pylist(), strict=True)
    return theirs.filter(pa.array([not (segment in gone and model in models) for segment, model in pairs]))


def _speakers_in(segment: Mapping[str, Any]) -> set[str | None]:
    return {segment["speaker"], *(word["speaker"] for word in segment["words"] or ())}


def _without_vector(row: dict[str, Any], forgotten: Forgotten) -> dict[str, Any]:
    return row | {"vector": None} if is_forgotten(forgotten, row["recording_id"], row["speaker"]) else row


def _without_words(tables: dict[str, pa.Table], silent: Forgotten) -> dict[str, pa.Table]:
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
    results = {
        **tables,
        "segments": pa.Table.from_pylist(segments, schema=schema.SEGMENTS),
        "recordings": pa.Table.from_pylist(recordings, schema=schema.RECORDINGS),
    }
    if TRANSCRIPTS.name in tables:
        by_id = {row["id"]: row for row in segments}
        others = [
            _other_text(row, by_id.get(row["segment_id"], {}), silent) for row in tables[TRANSCRIPTS.name].to_pylist()
        ]
        results[TRANSCRIPTS.name] = pa.Table.from_pylist(others, schema=tables[TRANSCRIPTS.name].schema)
    return results


def _other_text(row: dict[str, Any], segment: Mapping[str, Any], silent: Forgotten) -> dict[str, Any]:
    """Another model's text of a segment, without the words of a speaker; all of it where words have no times."""
    other_words = None if row["words"] is None else _said_by_others(row["recording_id"], row["words"], silent)
    if row["words"] is not None and other_words is not None:
        is_whole = len(other_words) == len(row["words"])
        return row if is_whole else row | {"words": other_words, "text": _text_of(other_words)}
    is_theirs = (
        any(is_forgotten(silent, row["recording_id"], who) for who in _speakers_in(segment)) if segment else True
    )
    return row | {"text": ""} if is_theirs else row


def _silenced(row: dict[str, Any], silent: Forgotten) -> dict[str, Any]:
    """A segment without the words of a speaker; what cannot be told apart goes with them."""
    gone = {"phrases": None, "first_pass_text": None, "nbest": None}
    if row["words"] is None:
        return row | {"text": "", **gone} if is_forgotten(silent, row["recording_id"], row["speaker"]) else row
    other_words = _said_by_others(row["recording_id"], row["words"], silent)
    if len(other_words) == len(row["words"]):
        return row
    return row | {"words": other_words, "text": _text_of(other_words), **gone}


def _said_by_others(recording: str, words: Sequence[dict[str, Any]], silent: Forgotten) -> list[dict[str, Any]]:
    return [word for word in words if not is_forgotten(silent, recording, word["speaker"])]


def _text_of(words: Sequence[Mapping[str, Any]]) -> str:
    return join_words([word["word"].strip() for word in words])
