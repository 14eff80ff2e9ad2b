"""Model processes side by side: what comes out is what one gives, also where one of them dies."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from audiomill.runs import process_pool
from audiomill.runs.process_pool import most_processes
from audiomill.stages import model_processes
from audiomill.stages.child_processes import Idle
from audiomill.stages.model_processes import end_waiting
from tests.support.jobs_by_hand import check_accounts, part_files, run
from tests.support.synth import RATE, encode, noise, save_ctc_checkpoint


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("side-by-side")
    for number in range(6):
        waveform = np.concatenate([noise((number + 2) * RATE, number)] * 2)
        (folder / f"{number}.wav").write_bytes(encode(waveform))
    (folder / "broken.wav").write_bytes(b"no audio")
    return folder


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, the second as soon as there is anything for it."""
    monkeypatch.setattr(process_pool, "ANOTHER_AFTER_S", 1.0)
    monkeypatch.setattr(process_pool, "usable_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


def workers() -> set[int]:
    found = set()
    for process in psutil.Process().children():
        try:
            if any("model_worker" in part for part in process.cmdline()):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


OPTIONS: dict[str, Any] = {
    "segment": "fixed",
    "max_segment_seconds": 3.0,
    "chunk_overlap_seconds": 0.5,
    "part_seconds": 4.0,
}


def test_a_plan_that_is_worth_two_processes_has_both_from_the_start(
    many: None, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """54.5 s are planned and 54 come: a process that waits for 54.2 s of work is never started."""
    monkeypatch.setattr(process_pool, "ANOTHER_AFTER_S", 54.2)
    end_waiting()
    run(corpus, tmp_path / "out", **OPTIONS)
    assert len(workers()) == 2
    monkeypatch.setattr(process_pool, "ACTIVATION_BYTES", 1e15)
    end_waiting()
    run(corpus, tmp_path / "small", **OPTIONS)
    assert len(workers()) == 1, "there is no memory for two"
    assert part_files(tmp_path / "out") == part_files(tmp_path / "small")


@pytest.mark.nightly
def test_several_processes_give_the_bytes_of_one(
    many: None, corpus: Path, wav2vec2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, tmp_path / "many", model=wav2vec2_folder, **OPTIONS)
    assert len(workers()) >= 2, "they are kept for the next run"
    monkeypatch.setattr(process_pool, "ANOTHER_AFTER_S", 1e9)
    run(corpus, tmp_path / "one", model=wav2vec2_folder, **OPTIONS)
    check_accounts(tmp_path / "many")
    assert part_files(tmp_path / "many") == part_files(tmp_path / "one")


def test_a_process_that_dies_costs_nothing(many: None, corpus: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def assassin() -> None:
        deadline = time.monotonic() + 30
        while not killed and time.monotonic() < deadline:
            found = workers()
            if len(found) >= 2:
                killed.append(found.pop())
                psutil.Process(killed[0]).kill()
            time.sleep(0.01)

    thread = threading.Thread(target=assassin)
    thread.start()
    run(corpus, tmp_path / "killed", model="fake://slow", **OPTIONS)
    thread.join()
    assert killed
    run(corpus, tmp_path / "whole", **OPTIONS)
    assert part_files(tmp_path / "killed") == part_files(tmp_path / "whole")


def test_models_are_kept_for_the_next_run_until_their_files_change(corpus: Path, tmp_path: Path) -> None:
    model = save_ctc_checkpoint(tmp_path / "model", "wav2vec2-group")
    options = {**OPTIONS, "model": model}
    run(corpus / "0.wav", tmp_path / "first", **options)
    run(corpus / "0.wav", tmp_path / "kept", **options)
    save_ctc_checkpoint(model, "wav2vec2-group", seed=1)
    run(corpus / "0.wav", tmp_path / "other", **options)
    first, kept, other = (part_files(tmp_path / name) for name in ("first", "kept", "other"))
    assert first == kept != other


@pytest.mark.nightly  # daily: a process that dies at work costs nothing
def test_a_process_that_is_killed_while_it_loads_is_started_again(
    corpus: Path, wav2vec2_folder: Path, tmp_path: Path
) -> None:
    """It ended the run, with exit code 1."""
    model_processes.end_waiting()
    killed: list[int] = []

    def assassin() -> None:
        deadline = time.monotonic() + 30
        while not killed and time.monotonic() < deadline:
            for number in workers():
                psutil.Process(number).kill()
                killed.append(number)
            time.sleep(0.001)

    thread = threading.Thread(target=assassin)
    thread.start()
    summary = run(corpus, tmp_path / "out", model=wav2vec2_folder, **OPTIONS)
    thread.join()
    assert killed and summary["num_rejections"] == 1


def test_threads_may_take_what_waits_at_once() -> None:
    class Waiting:
        origin = "one"

        def is_alive(self) -> bool:
            return True

        def end(self) -> int:
            return 0

    idle: Idle[Waiting] = Idle()
    for _ in range(200):
        idle.leave(Waiting())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: idle.take("one"), range(400)))
    assert sum(each is not None for each in found) == 200 and len(idle) == 0
    assert len({id(each) for each in found if each is not None}) == 200, "nobody has the process of another"


@pytest.mark.parametrize(
    ("device", "told", "expected"),
    [("cpu", None, 8), ("cpu", "3", 3), ("cpu", "64", 8), ("cpu", "x", 8), ("cuda", None, 1)],
)
def test_a_core_computes_for_one_process(
    monkeypatch: pytest.MonkeyPatch, device: str, told: str | None, expected: int
) -> None:
    monkeypatch.setattr(process_pool, "usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert most_processes(device) == expected
