"""Which voice every speaker of an output is, as `audiomill voices` has found and named them."""

from __future__ import annotations

import pyarrow as pa

from audiomill.schema import column
from audiomill.storage.fs import Place
from audiomill.storage.part_files import read_table

FOLDER = "voices"
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
        column("name", pa.string(), "given by `audiomill voices --name`", nullable=True),
        column("sum", pa.list_(pa.float64()), "of the vectors that were linked to it, by seconds"),
        column("last", pa.int64(), "number of the latest id that was given"),
    ]
)
VOICE = ("voice", "voice_name")
"""Columns that a reader joins by recording and speaker."""


def voices_of(output: Place) -> dict[tuple[str, str | None], dict[str, str | None]]:
    """(recording, speaker) -> voice and its name; empty where `audiomill voices` was never run."""
    place = output.join(FOLDER, "links.parquet")
    if not place.exists():
        return {}
    rows = read_table(output.join(FOLDER, "voices.parquet"), ["voice", "name"]).to_pylist()
    names = {row["voice"]: row["name"] for row in rows}
    return {
        (row["recording_id"], row["speaker"]): {"voice": row["voice"], "voice_name": names.get(row["voice"])}
        for row in read_table(place, ["recording_id", "speaker", "voice"]).to_pylist()
    }
