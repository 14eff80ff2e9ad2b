"""Corpora on disk: good recordings in many forms, and every kind of broken one with the reason it must get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.support.synth import RATE, encode, encode_with_ffmpeg, tar_bytes, tone

REASONS = {
    "text.wav": "not_audio",
    "empty.mp3": "empty",
    "header.wav": "no_samples",
    "nan.wav": "nan_samples",
    "click.wav": "too_short",
    "absurd.wav": "invalid_header",
    "noise.bin.flac": "not_audio",
    "letter.mp3": "not_audio",
}
SINGLE_FILES = (
    "shard.tar",
    "shard.tar.gz",
    "hf.parquet",
    "plain.parquet",
    "nemo.jsonl",
    "table.csv",
    "table.tsv",
    "cuts.jsonl",
)
"""Sources of one file each, as `write_sources` names them."""
GOOD = (
    "voice.wav",
    "voice.flac",
    "voice.ogg",
    "voice.m4a",
    "stereo.wav",
    "renamed.mp3",
    "cut.flac",
    "cut.wav",
    "silence.wav",
)


def write_broken(folder: Path, voice: NDArray[np.int16]) -> None:
    """Good and broken recordings side by side; `REASONS` tells which must be rejected, `GOOD` which must not."""
    folder.mkdir(parents=True, exist_ok=True)
    speech = voice.astype(np.float32) / 32768
    flac = encode(speech, RATE, "FLAC")
    wav = encode(speech, RATE)
    files: dict[str, bytes] = {
        "voice.wav": wav,
        "voice.flac": flac,
        "voice.ogg": encode(speech, RATE, "OGG"),
        "voice.m4a": encode_with_ffmpeg(speech, RATE, "mp4", "aac"),
        "stereo.wav": encode(np.stack([speech, speech], 1), RATE),
        "renamed.mp3": flac,
        "cut.flac": flac[: len(flac) * 2 // 3],
        "cut.wav": wav[: len(wav) // 2],
        "silence.wav": encode(np.zeros(RATE * 2, np.float32), RATE),
        "text.wav": b"Dear Sir, this is a letter and not a recording. " * 40,
        "empty.mp3": b"",
        "header.wav": encode(np.zeros(0, np.float32), RATE),
        "nan.wav": encode(np.where(np.arange(RATE) == 777, np.nan, tone(1.0)).astype(np.float32), RATE, "WAV", "FLOAT"),
        "click.wav": encode(tone(0.01), RATE),
        "absurd.wav": wav[:24] + (4_000_000_000).to_bytes(4, "little") + wav[28:],
        "noise.bin.flac": np.random.default_rng(0).bytes(20_000),
        "letter.mp3": b"%PDF-1.7\n" + b"0 obj\n" * 500,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_sources(folder: Path, voices: list[tuple[NDArray[np.int16], str]]) -> dict[str, Any]:
    """The same voices as files, tar, compressed tar, Parquet of both layouts and manifests of every kind.

    Returns:
        Input paths by name, each holding `len(voices)` recordings with reference texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoded = [(encode(pcm, RATE, "FLAC"), text) for pcm, text in voices]
    audio = folder / "audio"
    audio.mkdir()
    for number, (content, text) in enumerate(encoded):
        (audio / f"{number}.flac").write_bytes(content)
        (audio / f"{number}.txt").write_text(text)
    members = {
        name: value
        for n, (c, t) in enumerate(encoded)
        for name, value in ((f"a/{n}.flac", c), (f"a/{n}.json", json.dumps({"text": t}).encode()))
    }
    (folder / "shard.tar").write_bytes(tar_bytes(members))
    (folder / "shard.tar.gz").write_bytes(tar_bytes(members, "w:gz"))
    texts = [text for _, text in encoded]
    structs = pa.array([{"bytes": c, "path": f"{n}.flac"} for n, (c, _) in enumerate(encoded)])
    pq.write_table(pa.table({"audio": structs, "sentence": texts}), folder / "hf.parquet", row_group_size=1)
    pq.write_table(pa.table({"audio": pa.array([c for c, _ in encoded]), "text": texts}), folder / "plain.parquet")
    nemo = [
        {"audio_filepath": f"audio/{n}.flac", "duration": len(pcm) / RATE, "text": t}
        for n, (pcm, t) in enumerate(voices)
    ]
    (folder / "nemo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in nemo))
    (folder / "table.csv").write_text("path,text\n" + "".join(f'audio/{n}.flac,"{t}"\n' for n, t in enumerate(texts)))
    (folder / "table.tsv").write_text(
        "path\tsentence\n" + "".join(f"audio/{n}.flac\t{t}\n" for n, t in enumerate(texts))
    )
    sources = [[{"type": "file", "channels": [0], "source": f"audio/{n}.flac"}] for n in range(len(voices))]
    recordings = [
        {
            "id": f"rec{n}",
            "sources": s,
            "sampling_rate": RATE,
            "num_samples": len(voices[n][0]),
            "duration": len(voices[n][0]) / RATE,
        }
        for n, s in enumerate(sources)
    ]
    supervisions = [
        {"id": f"sup{n}", "recording_id": f"rec{n}", "start": 0.0, "duration": 1.0, "channel": 0, "text": t}
        for n, t in enumerate(texts)
    ]
    cuts = [
        {
            "id": f"cut{n}",
            "start": 0.0,
            "duration": r["duration"],
            "channel": 0,
            "recording": r,
            "supervisions": [s],
            "type": "MonoCut",
        }
        for n, (r, s) in enumerate(zip(recordings, supervisions, strict=True))
    ]
    for name, rows in (("recordings", recordings), ("supervisions", supervisions), ("cuts", cuts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs: dict[str, Any] = {name: (str(folder / name),) for name in SINGLE_FILES}
    inputs["folder"] = (str(audio),)
    inputs["glob"] = (str(audio / "*.flac"),)
    inputs["lhotse"] = (str(folder / "recordings.jsonl"), str(folder / "supervisions.jsonl"))
    return inputs
