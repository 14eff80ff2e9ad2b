"""Side files of report.html: the data of single recordings and their segments, which `open` in report.js draws.

They are scripts, because a page on disk may load nothing else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from audiomill.storage.fs import Place
from audiomill.storage.urls import protocol, without_credentials

_Row = dict[str, Any]
SIDE_FILE_ROWS = 2_000
"""Recordings in one file of the index that is searched."""
PLAYABLE = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "mp4", "aac", "webm")


def script(call: str, value: Any) -> bytes:
    """`call(value)` as a script; JSON is JavaScript but for two line separators."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"{call}({text})".encode()


def part_file(details: Sequence[tuple[_Row, list[_Row]]]) -> _Row:
    """Recordings of a part with their segments and words, by id."""
    return {recording["id"]: _recording(recording, segments) for recording, segments in details}


def index_row(part: int, recording: _Row, segments: Sequence[_Row]) -> list[Any]:
    """What is searched and listed: id, name, part, seconds, least confidence, language, kinds of failure, WER, text."""
    rated = [row["confidence"] for row in segments if row["confidence"] is not None]
    return [
        recording["id"],
        display_name(recording),
        part,
        round(recording["duration_s"], 2),
        round(min(rated), 3) if rated else None,
        recording["language"],
        recording["kinds"] + (["damaged"] if recording["error"] else []),
        None if recording.get("wer") is None else round(recording["wer"], 4),
        recording["text"] or "",
    ]


def display_name(row: _Row) -> str:
    """File name, and the member's name inside a shard."""
    base = without_credentials(str(row["source"])).rsplit("/", 1)[-1]
    return f"{base}!{row['member']}" if row["member"] else base


class Index:
    """Writes the chunks of the index as they fill."""

    def __init__(self, folder: Place) -> None:
        self._folder, self._rows = folder, list[list[Any]]()
        self.num_chunks = 0

    def add(self, row: list[Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == SIDE_FILE_ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what is left."""
        if self._rows:
            place = self._folder.join(f"index-{self.num_chunks:04d}.js")
            place.write(script("audiomill.index", [self.num_chunks, self._rows]))
            self.num_chunks, self._rows = self.num_chunks + 1, []


def _recording(recording: _Row, segments: Sequence[_Row]) -> _Row:
    return {
        "name": display_name(recording),
        "source": without_credentials(recording["source"]),
        "sound": _playable(recording),
        "from": recording["span_start_s"],
        "seconds": round(recording["duration_s"], 3),
        "speech": round(recording["speech_s"], 3),
        "rate": recording["sample_rate"],
        "channels": recording["num_channels"],
        "language": recording["language"],
        "error": recording["error"],
        "reference": recording["reference"],
        "wer": recording.get("wer"),
        "envelope": base64.b64encode(recording["envelope"]).decode(),
        "envelope_s": recording["envelope_s"],
        "turns": [
            [row["speaker"], round(row["start_s"], 3), round(row["stop_s"], 3)] for row in recording.get("turns", ())
        ],
        "segments": [side_segment(row) for row in segments],
    }


def side_segment(row: _Row) -> _Row:
    """A segment as the page wants it."""
    return {
        "start": round(row["start_s"], 3),
        "stop": round(row["stop_s"], 3),
        "channel": row["channel"],
        "speaker": row["speaker"],
        "text": row["text"],
        "first": row["first_pass_text"],
        "confidence": row["confidence"],
        "fallback_level": row["fallback_level"],
        "failed_checks": row["failed_checks"] or [],
        "words": [
            [word["word"], round(word["start_s"], 3), round(word["stop_s"], 3), word["confidence"], word["speaker"]]
            for word in row["words"] or ()
        ],
    }


def _playable(recording: _Row) -> str | None:
    """The source itself, where a browser on this machine could play it."""
    source = str(recording["source"])
    is_plain = protocol(source) in ("file", "local") and not recording["member"]
    return source if is_plain and source.lower().rsplit(".", 1)[-1] in PLAYABLE else None
