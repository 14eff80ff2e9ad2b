"""`audiomill run`: several models and outputs behind one decode; `export` of units; `trace`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiomill.models.codes.codebooks import Codebook, write_codebook
from audiomill.storage.fs import Place
from audiomill_jobs.install.demo import english_clips
from tests.support.jobs_by_hand import check_accounts, rows, run
from tests.support.scale import daily
from tests.support.synth import encode, noise

JOB = """
inputs: in
output: out
engine: local
part-seconds: 30
models:
  - model: {whisper}
    transcripts: {{language: en}}
    embeddings: {{layers: [2], pool: mean}}
  - model: {ctc}
    embeddings: [{{layers: "1", pool: mean}}, {{layers: "0,2", frame-stride: 4}}]
    codes: [{{codebook: km.npy, codebook-layer: 1, deduplicate: true}}]
"""


@pytest.fixture
def place(tmp_path: Path, voices: Any) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(daily(2, 4)):
        pause = np.zeros(20_000, np.int16)
        clips = [pcm for n in range(number + 1) for pcm in (voices[n % 2][0], pause)]
        (tmp_path / "in" / f"{number}.flac").write_bytes(encode(np.concatenate(clips), kind="FLAC"))
    np.save(tmp_path / "km.npy", np.random.default_rng(0).normal(size=(20, 32)).astype(np.float32))
    return tmp_path


def test_two_models_share_one_decode_and_their_segments(
    place: Path, audiomill: Any, whisper: Path, wav2vec2_folder: Path
) -> None:
    (place / "job.yaml").write_text(JOB.format(whisper=whisper, ctc=wav2vec2_folder))
    done = audiomill("run", "job.yaml", "--verify-segments", "4")
    assert done.returncode == 0, done.stderr
    assert f"verification: {daily(2, 3)} segments" in done.stdout and "codes of km" in done.stdout
    check_accounts(place / "out")
    segments = rows(place / "out", "segments")
    embeddings, codes = rows(place / "out", "embeddings"), rows(place / "out", "codes")
    assert all("fox" in row["text"].lower() or "ello" in row["text"] for row in rows(place / "out", "recordings"))
    by_model: dict[str, list[Any]] = {}
    for row in embeddings:
        by_model.setdefault(row["model"], []).append(row)
    assert {name: len(found) / len(segments) for name, found in by_model.items()} == {
        str(whisper): 1,
        str(wav2vec2_folder): 3,
    }
    names = [row["id"] for row in segments]
    assert [row["segment_id"] for row in codes] == names == [row["segment_id"] for row in by_model[str(whisper)]]
    assert {len(row["values"][0]) for row in by_model[str(whisper)]} == {384}
    # Alone, each model says the same of the same segments.
    run(
        place / "in",
        place / "alone",
        "encode",
        model=wav2vec2_folder,
        codebook=place / "km.npy",
        codebook_layer=1,
        deduplicate=True,
        segment="vad",
    )
    assert rows(place / "alone", "codes") == codes
    assert "nothing to do" in audiomill("run", "job.yaml").stdout


@pytest.mark.nightly  # daily: two models share one decode, and words are aligned in tests/models/test_ctc_align.py
def test_a_ctc_model_beside_whisper_tells_when_its_words_were_said(
    place: Path, audiomill: Any, whisper: Path, wav2vec2_folder: Path
) -> None:
    job = f"inputs: in\noutput: {{}}\nengine: local\nverify_segments: 0\nmodels:\n  - {{{{model: {whisper}, transcripts: true}}}}\n"
    second = f"  - {{{{model: {wav2vec2_folder}, align: {{}}}}}}\n"
    outputs = {"plain": job.format("plain"), "both": (job + second).format("both", "true")}
    outputs["without"] = (
        job.format("without")
        + f"  - {{model: {wav2vec2_folder}, align: false, embeddings: {{layers: '1', pool: mean}}}}\n"
    )
    found = {}
    for name, text in outputs.items():
        (place / f"{name}.yaml").write_text(text)
        done = audiomill("run", f"{name}.yaml")
        assert done.returncode == 0, done.stderr
        found[name] = rows(place / name, "segments")
    assert [s["text"] for s in found["both"]] == [s["text"] for s in found["plain"]]
    assert found["without"] == found["plain"]
    times = {name: [(w["start_s"], w["stop_s"]) for s in found[name] for w in s["words"]] for name in found}
    assert times["both"] != times["plain"] and len(times["both"]) == len(times["plain"])
    for segment in found["both"]:
        edges = [edge for word in segment["words"] for edge in (word["start_s"], word["stop_s"])]
        assert edges == sorted(edges) and all(segment["start_s"] <= edge <= segment["stop_s"] for edge in edges)


def test_text_vectors_and_codes_of_one_model_equal_those_of_three_runs(
    place: Path, audiomill: Any, wav2vec2_folder: Path
) -> None:
    (place / "job.yaml").write_text(
        f"inputs: [in]\noutput: out\nengine: local\nsegment: fixed\nmodels:\n  - model: {wav2vec2_folder}\n    transcripts: true\n"
        "    embeddings: {layers: '1', pool: mean, dtype: fp32}\n    codes: {codebook: km.npy, codebook_layer: 1}\n"
    )
    assert audiomill("run", "job.yaml").returncode == 0
    common = {"model": wav2vec2_folder, "segment": "fixed"}
    run(place / "in", place / "text", **common)
    run(place / "in", place / "vectors", "embed", layers="1", pool="mean", dtype="fp32", **common)
    run(place / "in", place / "codes", "encode", codebook=place / "km.npy", codebook_layer=1, **common)
    assert rows(place / "out", "segments") == rows(place / "text", "segments")
    assert rows(place / "out", "codes") == rows(place / "codes", "codes")
    for ours, theirs in zip(rows(place / "out", "embeddings"), rows(place / "vectors", "embeddings"), strict=True):
        assert np.allclose(ours["values"], theirs["values"], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inputs: in", "expected `models:`"),
        ("models: [{transcripts: true}]", "expected a mapping with `model:`"),
        ("models: [{model: 'fake://'}]", "expected `transcripts`, `embeddings`, `codes` or `align`"),
        ("models: [{model: 'fake://', embeddings: {layer: 3}}]", "models.0.embeddings.layer is no option here"),
        (
            "models: [{model: 'fake://', embedings: {pool: mean}}]",
            "models.0.embedings is no option here; expected one of transcripts",
        ),
        ("models: [{model: 'fake://', embeddings: [1, '1,2']}]", "asked for twice"),
        ("models: [{model: 'fake://', embeddings: {pool: sum}}]", "pool: 'sum' is not one of"),
        (
            "models: [{model: 'fake://', transcripts: true}, {model: 'fake://', transcripts: {consistency_samples: 1}}]",
            "are for the first model that transcribes",
        ),
        ("models: [{model: 'fake://', embeddings: [{dtype: fp16}, {dtype: fp32}]}]", "one dtype"),
    ],
)
def test_a_wrong_job_file_is_said_in_one_line(place: Path, audiomill: Any, text: str, words: str) -> None:
    (place / "job.yaml").write_text(f"{text}\n")
    done = audiomill("run", "job.yaml", "in", "--output", "out", "--engine", "local")
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_units_are_written_one_line_a_recording(tmp_path: Path, audiomill: Any) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.wav").write_bytes(encode(noise(16_000 * 40 * (number + 1), number)))
    run(tmp_path / "in", tmp_path / "frames", "encode")
    run(tmp_path / "in", tmp_path / "runs", "encode", deduplicate=True)
    full: dict[str, list[list[int]]] = {}
    for row in rows(tmp_path / "frames", "codes"):
        full.setdefault(row["recording_id"], [[], []])[row["codebook"]] += row["codes"]
    expected = [" ".join(f"{a}-{b}" for a, b in zip(*pair, strict=True)) for pair in full.values()]
    assert audiomill("export", "frames", "--format", "txt").stdout.splitlines() == expected
    assert (
        audiomill("export", "runs", "--format", "txt", "--ids", "--to", "units.txt").stdout == "3 lines in units.txt\n"
    )
    for line, name, whole in zip((tmp_path / "units.txt").read_text().splitlines(), full, expected, strict=True):
        units = whole.split()
        joined = [unit for n, unit in enumerate(units) if n == 0 or unit != units[n - 1]]
        assert line == f"{name}\t{' '.join(joined)}", "runs are joined over the seams of windows too"


@pytest.mark.parametrize("kind", ["ctc", "whisper"])
def test_a_trace_shows_every_step_with_its_shape(
    tmp_path: Path, audiomill: Any, kind: str, whisper: Path, wav2vec2_folder: Path
) -> None:
    model = whisper if kind == "whisper" else wav2vec2_folder
    clip = str(english_clips()[1][0])
    codebook = Codebook(
        centroids_VD=np.eye(10, 384 if kind == "whisper" else 32, dtype=np.float32), layer=1, model="", fingerprint=None
    )
    write_codebook(Place(str(tmp_path / "km.safetensors")), codebook)
    done = audiomill(
        "trace", clip, "--model", str(model), "--codebook", "km.safetensors", "--output", "out", "--layers", "0,2"
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "index.html").read_text()
    names = [path.name for path in sorted((tmp_path / "out").glob("*.png"))]
    steps = ["waveform", "log-mel-spectrogram", *(["convolutional-features"] if kind == "ctc" else [])]
    total = 4 if kind == "whisper" else 2
    steps += [
        f"hidden-state-0-of-{total}",
        f"hidden-state-2-of-{total}",
        "codes-of-km",
        *(["CTC-posteriors"] if kind == "ctc" else []),
    ]
    assert [name[3:-4] for name in names] == steps
    assert page.count("<img alt=") == len(steps) and 'src="http' not in page and "data:audio/wav" in page
    seconds = soundfile.info(clip).duration
    frames = re.findall(r"(\d+) frames x \d+ (?:mel bands|dimensions|codebooks|letters)", page)
    assert frames and all(abs(int(count) - seconds * 50) < 3 or abs(int(count) - seconds * 100) < 3 for count in frames)
    if kind == "whisper":
        assert "The quick brown fox" in page
    assert audiomill("trace", "gone.wav", "--model", str(model), "--output", "x").returncode == 2
