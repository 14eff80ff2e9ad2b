"""The tables of voices, written by `audiomill link-speakers`: who is the same person in every recording, and by what name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from audiomill.schema import column
from audiomill.storage.fs import Place
from audiomill.storage.part_files import read_table
from audiomill.tables.forgotten import forgetting_settings

VOICES_FOLDER = "voices"
LINKS = pa.schema(
    [
        column("recording_id", pa.string(), "joins recordings.id"),
        column("speaker", pa.string(), "joins speakers.speaker"),
        column("voice", pa.string(), "joins voices.voice: the same person in every recording"),
        column("similarity", pa.float32(), "cosine to the voice when it was linked; 1: founded it", "-1..1"),
    ]
)
VOICES = pa.schema(
    [
        column("voice", pa.string(), "id, never given to anybody else"),
        column("name", pa.string(), "given by `audiomill link-speakers --name`", nullable=True),
        column("sum", pa.list_(pa.float64()), "of the vectors that were linked to it, by seconds"),
        column("last", pa.int64(), "number of the latest id that was given"),
        column("settings", pa.string(), "digest of what the output was made with: under others, links mean nothing"),
    ]
)
VOICE = ("voice", "voice_name")
"""Columns that a reader joins by recording and speaker."""


def voices_of(output: Place) -> dict[tuple[str, str | None], dict[str, str | None]]:
    """(recording, speaker) -> voice and its name; empty where `audiomill link-speakers` was never run."""
    place = output.join(VOICES_FOLDER, "links.parquet")
    if not place.exists():
        return {}
    rows = read_table(output.join(VOICES_FOLDER, "voices.parquet"), ["voice", "name", "settings"]).to_pylist()
    if {row["settings"] for row in rows} != {forgetting_settings(output)}:
        return {}
    names = {row["voice"]: row["name"] for row in rows}
    return {
        (row["recording_id"], row["speaker"]): {"voice": row["voice"], "voice_name": names.get(row["voice"])}
        for row in read_table(place, ["recording_id", "speaker", "voice"]).to_pylist()
    }


def drop_voices(output: Place) -> None:
    """Removes what is known of voices, but for what was forgotten."""
    for name in ("links.parquet", "voices.parquet"):
        output.join(VOICES_FOLDER, name).remove()


def with_names(
    row: dict[str, Any], voices: Mapping[tuple[str, str | None], Mapping[str, str | None]]
) -> dict[str, Any]:
    """A row of segments or turns, its speakers by the names that people gave them."""

    def named(speaker: str | None) -> str | None:
        voice = voices.get((row["recording_id"], speaker))
        return speaker if voice is None or voice["voice_name"] is None else voice["voice_name"]

    if not voices or row["speaker"] is None:
        return row
    words = row.get("words")
    renamed_words = {} if words is None else {"words": [word | {"speaker": named(word["speaker"])} for word in words]}
    return row | {"speaker": named(row["speaker"])} | renamed_words
