"""The Ray engine: equal to the local one, and indifferent to dying actors, workers and nodes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from rich.console import Console

from audiomill.config.fields import build
from audiomill.config.jobs import KmeansJobConfig
from audiomill.models.codes.codebooks import read_codebook
from audiomill.runs.kmeans import fit_codebook
from audiomill.storage.fs import Place
from tests.runs.test_faults import (
    ALL_APART,
    ALL_AT_ONCE,
    FAULTS,
    MANY,
    ON_RAY,
    PATIENCE,
    killed_while_reading,
    reasons,
    write_faults,
)
from tests.support import corpus
from tests.support.codec_checkpoints import save_mimi
from tests.support.jobs_by_hand import check_accounts, part_files, rows, run
from tests.support.scale import daily
from tests.support.synth import RATE, encode

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, voices: Any) -> Path:
    """Recordings, one of several pieces, and broken ones."""
    made = tmp_path_factory.mktemp("ray")
    for number in range(daily(3, 20)):
        (made / f"r{number:02d}.flac").write_bytes(
            encode(np.concatenate([voices[number % 2][0]] * (1 + number % 3)), RATE, "FLAC")
        )
    (made / "long.flac").write_bytes(encode(np.concatenate([voices[1][0]] * daily(9, 30)), RATE, "FLAC"))
    corpus.write_broken(made / "broken", voices[1][0])
    return made


@pytest.mark.nightly  # daily: the same with a small model, to the byte
def test_local_equals_ray_with_real_weights(ray_session: Any, tmp_path: Path, folder: Path, whisper: Path) -> None:
    some = [folder / "broken" / name for name in ("voice.ogg", "cut.flac", "text.wav")]
    for engine in ("local", "ray"):
        run(
            daily(some, [folder / "broken"]),
            tmp_path / engine,
            engine=engine,
            model=str(whisper),
            part_seconds=100,
            no_progress_timeout=60,
        )
    check_accounts(tmp_path / "ray")
    for table in ("recordings", "segments", "rejections"):
        assert rows(tmp_path / "local", table) == rows(tmp_path / "ray", table)


@pytest.mark.nightly  # daily: the same with a task, an actor and a decoder killed on the way
def test_local_equals_ray_to_the_byte_also_for_a_recording_in_pieces(
    ray_session: Any, tmp_path: Path, folder: Path
) -> None:
    for engine in ("local", "ray"):
        run(folder, tmp_path / engine, engine=engine, actors=daily(1, 2), part_seconds=25, no_progress_timeout=300)
    assert part_files(tmp_path / "local") == part_files(tmp_path / "ray")
    check_accounts(tmp_path / "ray")


@pytest.mark.nightly
def test_vectors_codes_and_codebooks_are_the_same_on_both_engines(
    ray_session: Any, tmp_path: Path, folder: Path, wav2vec2_folder: Path
) -> None:
    common: dict[str, Any] = {"model": wav2vec2_folder, "part_seconds": 25, "no_progress_timeout": 60}
    for engine in ("local", "ray"):
        names = {"inputs": (str(folder),), "model": str(wav2vec2_folder), "quiet": True, "layer": 1, "clusters": 10}
        fitting = {**names, "output": str(tmp_path / f"{engine}.safetensors"), "max_frames": 300, "num_seeds": 1}
        fit_codebook(build(KmeansJobConfig, {**fitting, "engine": engine, "part_seconds": 25}), Console(quiet=True))
        run(folder, tmp_path / f"e-{engine}", "embed", engine=engine, dtype="fp32", layers="1,2", **common)
        codebook = tmp_path / "local.safetensors"
        run(folder, tmp_path / f"c-{engine}", "encode", engine=engine, codebook=codebook, deduplicate=True, **common)
        run(
            folder,
            tmp_path / f"k-{engine}",
            "encode",
            engine=engine,
            **{**common, "model": save_mimi(tmp_path / "mimi")},
        )
    assert part_files(tmp_path / "k-local") == part_files(tmp_path / "k-ray"), "a codec at its own rate"
    assert rows(tmp_path / "c-local", "codes") == rows(tmp_path / "c-ray", "codes")
    for ours, theirs in zip(
        rows(tmp_path / "e-local", "embeddings"), rows(tmp_path / "e-ray", "embeddings"), strict=True
    ):
        assert np.abs(np.array(ours.pop("values")) - np.array(theirs.pop("values"))).max() < 1e-5
        assert ours == theirs
    centroids = [read_codebook(Place(str(tmp_path / f"{e}.safetensors")), None).centroids_VD for e in ("local", "ray")]
    assert np.abs(centroids[0] - centroids[1]).max() < 1e-4


def ray_processes(name: str) -> list[psutil.Process]:
    """Ray's own workers of that name and their children: the tests beside these have processes of the same names."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            titles = [" ".join(each.cmdline()) for each in (process, *process.parents()[:1])]
        except psutil.Error:
            continue
        if name in titles[0] and any("ray::" in title for title in titles):
            found.append(process)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """What an undisturbed local run writes."""
    output = tmp_path_factory.mktemp("undisturbed")
    run(folder, output / "out", part_seconds=15)
    return output / "out"


def test_a_killed_decoder_task_and_actor_change_nothing(
    ray_session: Any, tmp_path: Path, folder: Path, undisturbed: Path
) -> None:
    """Ray equals local to the byte, also for a recording in pieces."""
    victims = ["decode_worker", "_Decode", "_Infer"]
    killed: list[str] = []
    is_over = threading.Event()

    def assassin() -> None:
        for victim in victims:
            while victim not in killed and not is_over.is_set():
                for process in ray_processes(victim)[:1]:
                    time.sleep(0.3)
                    try:
                        process.kill()
                        killed.append(victim)
                    except psutil.NoSuchProcess:
                        continue
                time.sleep(0.02)

    thread = threading.Thread(target=assassin)
    thread.start()
    try:
        run(folder, tmp_path / "killed", engine="ray", model="fake://slow", part_seconds=15, no_progress_timeout=300)
    finally:
        is_over.set()
        thread.join()
    assert killed == victims, "what was not killed was not tested"
    assert part_files(tmp_path / "killed") == part_files(undisturbed)
    check_accounts(tmp_path / "killed")


@pytest.mark.nightly
def test_a_recording_that_kills_its_workers_is_rejected_alone(
    ray_session: Any, tmp_path: Path, folder: Path, voices: Any
) -> None:
    made = tmp_path / "in"
    made.mkdir()
    for number in range(4):
        (made / f"r{number}.wav").write_bytes(encode(voices[number % 2][0]))
    (made / "poison.wav").write_bytes(
        encode(np.concatenate([voices[1][0][:8_000], np.full(RATE, 12_345, np.int16), voices[1][0]]))
    )
    run(made, tmp_path / "out", engine="ray", model="fake://poison", segment="none", no_progress_timeout=300)
    check_accounts(tmp_path / "out")
    (rejection,) = rows(tmp_path / "out", "rejections")
    assert rejection["reason"] == "worker_crashed" and rejection["source"].endswith("poison.wav")
    assert len(rows(tmp_path / "out", "recordings")) == 4


@pytest.mark.nightly
def test_one_node_equals_three_with_one_killed(tmp_path: Path, folder: Path, undisturbed: Path) -> None:
    """In a process of its own: a cluster and the suite's session do not mix."""
    script = Path(__file__).with_name("three_nodes.py")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(script), str(folder), str(tmp_path / "three")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed a node" in done.stdout
    assert part_files(tmp_path / "three") == part_files(undisturbed)


@pytest.mark.nightly  # daily: the same faults on the local engine, and a killed task and actor here
@pytest.mark.parametrize(("faults", "part_seconds"), [(ON_RAY, MANY), ALL_AT_ONCE, ALL_APART])
def test_faults_cost_the_same_on_ray(
    ray_session: Any, tmp_path: Path, faults: Collection[str], part_seconds: float
) -> None:
    made = write_faults(tmp_path / "in", faults)
    with killed_while_reading(tmp_path / "in" / "decode-killed.flac"):
        run(
            made, tmp_path / "out", model="fake://poison", engine="ray", part_seconds=part_seconds,
            no_progress_timeout=60, **PATIENCE,
        )  # fmt: skip
    assert reasons(tmp_path / "out") == {name: FAULTS[name] for name in faults}
    check_accounts(tmp_path / "out")
