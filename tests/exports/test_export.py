"""Names of exported files, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from audiomill.exports.transcript_files import file_names as _names
from tests.support.jobs_by_hand import run
from tests.support.synth import encode


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/p001.mp4", "a/p001.webm", "a/q.wav"], ["p001.mp4", "p001.webm", "q"]),
        (["a/p001.mp4", "b/p001.mp4"], ["p001.mp4-0", "p001.mp4-1"]),
        (["a/Take #3 (final).wav"], ["Take #3 (final)"]),
        (["a/x.wav", "a/X.flac"], ["x.wav", "X.flac"]),
        (["a/p.mp4", "a/p.webm", "a/p.mp4.wav"], ["p.mp4-0", "p.webm", "p.mp4-2"]),
        (["a/.wav", "a/one:two?.wav", "a/tab\there.wav"], ["recording", "one_two_", "tab_here"]),
    ],
)
def test_files_are_called_as_the_recording_and_each_name_is_used_once(files: list[str], names: list[str]) -> None:
    ids = [str(number) for number in range(len(files))]
    assert list(_names(pa.table({"id": ids, "source": files, "member": [""] * len(files)})).values()) == names


def test_json_has_segments_and_words_as_whisperx_writes_them(
    audiomill: Any, whisper: Path, voices: Any, tmp_path: Path
) -> None:
    (tmp_path / "fox.wav").write_bytes(encode(voices[1][0]))
    run(tmp_path / "fox.wav", tmp_path / "out", model=whisper, word_times=True)
    assert audiomill("export", str(tmp_path / "out"), "--format", "json").returncode == 0
    found = json.loads((tmp_path / "out" / "export" / "fox.json").read_text())
    assert found["language"] == "en" and found["segments"][0]["text"]
    words = [word for segment in found["segments"] for word in segment["words"]]
    assert words == found["word_segments"] and " ".join(word["word"] for word in words) == found["segments"][0]["text"]
    assert all(0 <= word["start"] <= word["end"] <= len(voices[1][0]) / 16_000 and word["score"] for word in words)
