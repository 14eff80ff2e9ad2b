"""Kept segments as other tools read them: NeMo's JSON lines (Hugging Face datasets reads them too) and Lhotse's cuts; and as FLAC files."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import soundfile

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute
from audiomill.train.pseudo import selected_samples

_MAX_CLIP_S = 3600.0


def export_clips(rows: Sequence[dict[str, Any]], output: Place) -> list[dict[str, Any]]:
    """Writes OUTPUT/audio/ID.flac (16 kHz, one channel) for each row.

    Args:
        rows: as in `selection.SELECTED`.
        output: of the selection.

    Returns:
        The rows with the files as their sources.
    """
    results = []
    for row, pcm_T in selected_samples(rows, _MAX_CLIP_S, output.options):
        sink = io.BytesIO()
        soundfile.write(sink, pcm_T, MODEL_SAMPLE_RATE, format="FLAC")
        place = output.join("audio", f"{row['id']}.flac")
        place.write(sink.getvalue())
        results.append({**row, "source": absolute(place.url), "member": "", "offset": 0.0, "channel": None})
    return results


PASSED_ON = ("id", "member", "language", "speaker", "teacher", "expected_wer", "confidence")


def audio_path(row: dict[str, Any]) -> str:
    """The file that holds the audio; a member of a shard is named behind it, as `shard.tar/member`."""
    return f"{row['source']}/{row['member']}" if row["member"] else str(row["source"])


def manifest_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """One object a line: audio_filepath, offset, duration, text, lang and more."""
    lines = []
    for row in rows:
        passed_on = {name: row[name] for name in PASSED_ON if row.get(name) not in (None, "")}
        named = {
            "audio_filepath": audio_path(row),
            "offset": row["offset"],
            "duration": row["duration"],
            "text": row["text"],
        }
        lines.append(json.dumps({**named, "lang": row["language"], **passed_on}, ensure_ascii=False))
    return "".join(line + "\n" for line in lines).encode()


def lhotse_cuts(rows: Sequence[dict[str, Any]]) -> bytes:
    """One MonoCut a line, compressed. Times of the recording are those that hold the cut: Lhotse checks no more."""
    # mtime 0: the same rows give the same bytes
    return gzip.compress("".join(json.dumps(cut, ensure_ascii=False) + "\n" for cut in _cuts(rows)).encode(), mtime=0)


def _cuts(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        channel, stop = row["channel"] or 0, row["offset"] + row["duration"]
        yield {
            "id": row["id"],
            "start": row["offset"],
            "duration": row["duration"],
            "channel": channel,
            "supervisions": [
                {
                    "id": row["id"],
                    "recording_id": row["recording_id"],
                    "start": 0.0,
                    "duration": row["duration"],
                    "channel": channel,
                    "text": row["text"],
                    "language": row["language"],
                    "speaker": row["speaker"],
                }
            ],
            "recording": {
                "id": row["recording_id"],
                "sources": [{"type": "file", "channels": [channel], "source": audio_path(row)}],
                "sampling_rate": MODEL_SAMPLE_RATE,
                "num_samples": round(stop * MODEL_SAMPLE_RATE),
                "duration": stop,
            },
            "custom": {"expected_wer": row["expected_wer"], "confidence": row["confidence"], "teacher": row["teacher"]},
            "type": "MonoCut",
        }
