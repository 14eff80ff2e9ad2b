"""The four laws, on real speech with real weights where it matters, and with real signals."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from audiomill import schema
from tests.support import corpus
from tests.support.jobs_by_hand import check_accounts, part_files, rows, run
from tests.support.scale import daily
from tests.support.synth import RATE, encode, noise, save_ctc_checkpoint, tar_bytes


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, voices: Any) -> Path:
    """Forty recordings of different lengths, some in a tar, one longer than a part, some broken."""
    folder = tmp_path_factory.mktemp("many")
    random_ = np.random.default_rng(5)
    for number in range(24):
        pieces = [voices[int(random_.integers(2))][0] for _ in range(int(random_.integers(1, 5)))]
        (folder / f"r{number:02d}.flac").write_bytes(encode(np.concatenate(pieces), RATE, "FLAC"))
    members = {f"m{n}.wav": encode(voices[n % 2][0]) for n in range(12)}
    (folder / "shard.tar").write_bytes(tar_bytes(members))
    (folder / "long.flac").write_bytes(encode(np.concatenate([v for v, _ in voices] * 12), RATE, "FLAC"))
    corpus.write_broken(folder / "broken", voices[1][0])
    return folder


@pytest.fixture(scope="module")
def few(many: Path, tmp_path_factory: pytest.TempPathFactory, voices: Any) -> Path:
    """What real weights read in seconds: some recordings, a tar, broken ones."""
    folder = tmp_path_factory.mktemp("few")
    for name in [f"r{n:02d}.flac" for n in range(daily(3, 5))]:
        (folder / name).write_bytes((many / name).read_bytes())
    members = {f"m{n}.wav": encode(voices[n % 2][0]) for n in range(daily(3, 12))}
    (folder / "shard.tar").write_bytes(tar_bytes(members))
    (folder / "broken").mkdir()
    for path in sorted((many / "broken").iterdir())[: daily(4, 99)]:
        (folder / "broken" / path.name).write_bytes(path.read_bytes())
    return folder


# ------------------------------------------------------------------------------------------ 1: nothing is lost


def test_every_broken_file_leaves_with_its_reason_and_the_rest_is_transcribed(
    tmp_path: Path, whisper: Path, voices: Any
) -> None:
    corpus.write_broken(tmp_path / "in", voices[1][0])
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "in/gone.wav"}\nno json\n')
    run([tmp_path / "in", tmp_path / "m.jsonl"], tmp_path / "out", model=str(whisper))
    check_accounts(tmp_path / "out")
    reasons = {Path(r["source"]).name: r["reason"] for r in rows(tmp_path / "out", "rejections")}
    assert reasons == {**corpus.REASONS, "gone.wav": "not_found", "m.jsonl": "bad_manifest_row"}
    recordings = {Path(r["source"]).name: r for r in rows(tmp_path / "out", "recordings")}
    assert set(recordings) == set(corpus.GOOD)
    for name in ("voice.wav", "voice.flac", "voice.ogg", "voice.m4a", "stereo.wav", "renamed.mp3"):
        assert "quick brown fox" in recordings[name]["text"].lower() and recordings[name]["error"] is None
    for name in ("cut.flac", "cut.wav"):
        assert "truncated" in recordings[name]["error"] and recordings[name]["failed_s"] > 0.5
    assert recordings["silence.wav"]["text"] == "" and recordings["silence.wav"]["speech_s"] == 0


@pytest.mark.parametrize("segment", ["vad", "fixed", "none"])
@pytest.mark.parametrize("channels", ["mix", "split", "first"])
def test_every_second_is_accounted_for(tmp_path: Path, many: Path, segment: str, channels: str) -> None:
    run(many, tmp_path / "out", segment=segment, channels=channels, part_seconds=40)
    check_accounts(tmp_path / "out")
    for row in rows(tmp_path / "out", "recordings"):
        if segment != "vad":
            assert row["non_speech_s"] == 0
    if channels == "split":
        channel_of = {s["channel"] for s in rows(tmp_path / "out", "segments")}
        assert channel_of == {0, 1}


def test_segments_lie_inside_their_recording_and_do_not_overlap(tmp_path: Path, many: Path) -> None:
    run(many, tmp_path / "out", part_seconds=40)
    recordings = {r["id"]: r for r in rows(tmp_path / "out", "recordings")}
    last: dict[str, float] = {}
    for segment in rows(tmp_path / "out", "segments"):
        owner = recordings[segment["recording_id"]]
        assert last.get(owner["id"], 0.0) <= segment["start_s"] < segment["stop_s"] <= owner["duration_s"]
        last[owner["id"]] = segment["stop_s"]


# ------------------------------------------------------------------------------------- 2: the batch does not matter


def test_text_is_the_same_whatever_the_batch_and_the_part(tmp_path: Path, few: Path, whisper: Path) -> None:
    texts, logprobs = [], []
    for number, options in enumerate([{}, {"batch_seconds": 30, "part_seconds": 15}]):
        run(few, tmp_path / str(number), model=str(whisper), **options)
        found = rows(tmp_path / str(number), "segments")
        texts.append({s["id"]: (s["text"], s["start_s"], s["stop_s"]) for s in found})
        logprobs.append({s["id"]: s["avg_logprob"] for s in found})
    assert texts[0] == texts[1]
    assert all(abs(logprobs[1][i] - value) < 2e-4 for i, value in logprobs[0].items())


@pytest.mark.parametrize("family", ["wav2vec2-group", pytest.param("wav2vec2-bert", marks=pytest.mark.nightly)])
def test_ctc_text_is_the_same_whatever_the_batch_and_the_part(tmp_path: Path, few: Path, family: str) -> None:
    """Every family's batches are compared with each row alone in tests/models/test_wav2vec2.py."""
    ctc_folder = save_ctc_checkpoint(tmp_path / "model", family)
    texts = []
    for number, options in enumerate([{"batch_seconds": 1}, {"batch_seconds": 500, "part_seconds": 20}]):
        run(
            few,
            tmp_path / str(number),
            model=str(ctc_folder),
            segment="fixed",
            max_segment_seconds=10,
            chunk_overlap_seconds=2,
            **options,
        )
        texts.append({s["id"]: s["text"] for s in rows(tmp_path / str(number), "segments")})
    assert texts[0] == texts[1] and any(texts[0].values())


def test_a_recording_in_pieces_has_the_words_of_one_in_a_single_piece(tmp_path: Path, wav2vec2_folder: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(encode(np.stack([noise(RATE * 100, 1), noise(RATE * 100, 2)], 1)))
    options = {
        "model": str(wav2vec2_folder),
        "segment": "fixed",
        "channels": "split",
        "max_segment_seconds": 8,
        "chunk_overlap_seconds": 2,
    }
    run(tmp_path / "in", tmp_path / "whole", **options)
    run(tmp_path / "in", tmp_path / "pieces", part_seconds=11, **options)
    one, many_ = (rows(tmp_path / name, "segments") for name in ("whole", "pieces"))
    timed = [
        [(s["id"], s["text"], [(w["word"], w["start_s"], w["stop_s"]) for w in s["words"]]) for s in found]
        for found in (one, many_)
    ]
    assert timed[0] == timed[1]


# ---------------------------------------------------------------------------------------- 3: a restart does not matter


def start(args: list[str], folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "audiomill", "transcribe", *args]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run writes, in parts of 12 s."""
    output = tmp_path_factory.mktemp("whole") / "out"
    run(many, output, part_seconds=12)
    return output


@pytest.mark.parametrize("victim", ["driver", pytest.param("decoder", marks=pytest.mark.nightly)])
def test_killed_at_random_and_run_again_gives_the_same_bytes(
    tmp_path: Path, many: Path, whole: Path, victim: str
) -> None:
    args = [str(many), "--model", "fake://slow", "--engine", "local", "--part-seconds", "12", "--output"]
    random_ = random.Random(victim)
    for _ in range(daily(1, 3)):
        process = start([*args, "killed"], tmp_path)
        time.sleep(random_.uniform(1.0, 3.5))
        targets = [process] if victim == "driver" else psutil.Process(process.pid).children()
        for target in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target.pid, signal.SIGKILL)
        if victim == "driver":
            process.wait()
        else:
            assert process.wait() == 0
    assert start([*args, "killed"], tmp_path).wait() == 0
    assert part_files(tmp_path / "killed") == part_files(whole)
    assert not [p for p in (tmp_path / "killed").rglob("*") if ".tmp-" in p.name or "_pieces" in p.name]
    check_accounts(tmp_path / "killed")


@pytest.mark.nightly
def test_a_killed_run_with_real_weights_ends_byte_identical(tmp_path: Path, few: Path, whisper: Path) -> None:
    args = [str(few), "--model", str(whisper), "--engine", "local", "--part-seconds", "20", "--output"]
    assert start([*args, "whole"], tmp_path).wait() == 0
    process = start([*args, "killed"], tmp_path)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("ledger/part-*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = set((tmp_path / "killed").glob("ledger/part-*.json"))
    times = {path: path.stat().st_mtime_ns for path in done}
    assert done and start([*args, "killed"], tmp_path).wait() == 0
    assert {path: path.stat().st_mtime_ns for path in done} == times, "finished parts are not redone"
    assert part_files(tmp_path / "killed") == part_files(tmp_path / "whole")


def test_new_inputs_add_parts_and_leave_the_old_ones_alone(tmp_path: Path, voices: Any) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.wav").write_bytes(encode(voices[0][0]))
    run(folder, tmp_path / "out")
    before = part_files(tmp_path / "out")
    (folder / "0.wav").write_bytes(encode(voices[1][0]))
    summary = run(folder, tmp_path / "out")
    after = part_files(tmp_path / "out")
    assert summary["num_parts_this_run"] == 1 and before.items() <= after.items()
    assert (tmp_path / "out" / "plan-0001.parquet").exists()
    check_accounts(tmp_path / "out")


def test_a_second_run_does_nothing(tmp_path: Path, many: Path) -> None:
    run(many, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*")}
    assert run(many, tmp_path / "out")["num_parts_this_run"] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*")} == before


def test_retried_rejections_end_as_if_they_had_never_failed(tmp_path: Path, many: Path) -> None:
    shutil.copytree(many, tmp_path / "in")
    (tmp_path / "in" / "r03.flac").rename(tmp_path / "hidden.flac")
    (tmp_path / "in" / "r03.flac").write_bytes(b"not yet uploaded")
    (tmp_path / "in" / "r07.flac").rename(tmp_path / "hidden7.flac")
    (tmp_path / "in" / "r07.flac").write_bytes(b"")
    run(tmp_path / "in", tmp_path / "out", part_seconds=1000)
    (tmp_path / "hidden.flac").rename(tmp_path / "in" / "r03.flac")
    (tmp_path / "hidden7.flac").rename(tmp_path / "in" / "r07.flac")
    run(tmp_path / "in", tmp_path / "out", part_seconds=1000, retry_rejected=True)
    check_accounts(tmp_path / "out")
    run(tmp_path / "in", tmp_path / "direct", part_seconds=1000)
    for table in schema.TABLES:
        assert rows(tmp_path / "out", table) == rows(tmp_path / "direct", table)


@pytest.mark.nightly  # daily: shards at once make one output, in tests/watch/test_watch.py
def test_two_runs_at_once_do_not_disturb_each_other(tmp_path: Path, many: Path, whole: Path) -> None:
    args = [str(many), "--model", "fake://slow", "--engine", "local", "--part-seconds", "12", "--output"]
    both = [start([*args, "out"], tmp_path) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert part_files(tmp_path / "out") == part_files(whole)


def test_schemas_are_the_same_for_empty_parts(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"")
    run(tmp_path / "in", tmp_path / "out")
    for name, expected in schema.TABLES.items():
        (path,) = (tmp_path / "out" / name).glob("*.parquet")
        assert pq.read_schema(path) == expected
