"""Faults in every stage: one recording with a fault costs itself, by name, whether it is alone in its part or not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from audiomill.errors import RunError
from tests.support.jobs_by_hand import check_accounts, rows, run
from tests.support.synth import RATE, encode, noise

POISONS = {
    "infer-killed": (12_345, "worker_crashed"),
    "infer-computes": (12_346, "model_timeout"),
    "infer-error": (12_348, "model_failed"),
    "infer-memory": (12_349, "model_failed"),
}
"""What the fake model does at a sample value, and the row that results."""
FAULTS = {
    **{name: reason for name, (_, reason) in POISONS.items()},
    "read-error": "unreadable",
    "read-hang": "time_limit",
    "decode-error": "decode_failed",
    "decode-killed": "decoder_crashed",
}
WAITING = {"read-hang"}
"""Takes long by nature: daily it is tried in test_sandbox."""
ON_RAY = {"infer-error", "read-error", "decode-error"}
"""Daily: those that neither wait nor start Ray's pipeline anew for every try."""
GOOD = ("a-good", "z-good")
PATIENCE: dict[str, Any] = {"segment": "none", "model_timeout": 1.0, "decode_timeout": 0.3}


def poisoned(value: int) -> bytes:
    return encode(np.concatenate([noise(RATE // 2), np.full(RATE, value, np.int16), noise(RATE)]))


SILENT = socket.create_server(("127.0.0.1", 0))
"""Takes connections and never answers."""


def write_faults(folder: Path, faults: Collection[str]) -> Path:
    """A recording a fault between two good ones, named by it; gives their manifest, because a search through folders
    takes files alone."""
    folder.mkdir()
    for name in GOOD:
        (folder / f"{name}.wav").write_bytes(encode(noise(2 * RATE, seed=len(name))))
    for name, (value, _) in POISONS.items():
        (folder / f"{name}.wav").write_bytes(poisoned(value))
    (folder / "read-error.wav").mkdir()
    (folder / "decode-error.flac").write_bytes(encode(noise(RATE), RATE, "FLAC")[:100])
    (folder / "decode-killed.flac").write_bytes(encode(noise(300 * RATE), RATE, "FLAC"))
    place = folder.with_suffix(".jsonl")
    paths = [f"{folder.name}/{path.name}" for path in folder.iterdir()]
    paths.append(f"http://127.0.0.1:{SILENT.getsockname()[1]}/read-hang.wav")
    chosen = sorted((path for path in paths if Path(path).stem in {*faults, *GOOD}), key=lambda path: Path(path).stem)
    place.write_text("".join(f'{{"audio_filepath": "{path}"}}\n' for path in chosen))
    return place


@contextlib.contextmanager
def killed_while_reading(victim: Path) -> Iterator[None]:
    """Ends every decode process that has the file open, as a fault of the decoder would."""
    stop = threading.Event()

    def assassin() -> None:
        while not stop.wait(0.005):
            for process in psutil.process_iter(["cmdline"]):
                with contextlib.suppress(psutil.Error):
                    is_decoder = any("decode_worker" in part for part in process.info["cmdline"] or [])
                    if is_decoder and any(each.path == str(victim) for each in process.open_files()):
                        process.send_signal(11)

    thread = threading.Thread(target=assassin)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def reasons(output: Path) -> dict[str, str]:
    return {Path(row["source"]).stem: row["reason"] for row in rows(output, "rejections")}


MANY, ONE = 10_000.0, 1.0
"""Seconds of a part that holds them all, and of parts with one recording each."""
DAILY = FAULTS.keys() - WAITING
ALL_AT_ONCE = pytest.param(FAULTS.keys(), MANY, marks=pytest.mark.nightly)
ALL_APART = pytest.param(FAULTS.keys(), ONE, marks=pytest.mark.nightly)


@pytest.mark.parametrize(("faults", "part_seconds"), [(DAILY, MANY), ALL_AT_ONCE, ALL_APART])
def test_a_fault_costs_its_recording_and_no_other(tmp_path: Path, faults: Collection[str], part_seconds: float) -> None:
    made = write_faults(tmp_path / "in", faults)
    with killed_while_reading(tmp_path / "in" / "decode-killed.flac"):
        summary = run(made, tmp_path / "out", model="fake://poison", part_seconds=part_seconds, **PATIENCE)
    assert reasons(tmp_path / "out") == {name: FAULTS[name] for name in faults}
    assert sorted(Path(row["source"]).stem for row in rows(tmp_path / "out", "recordings")) == sorted(GOOD)
    assert summary["num_rejections"] == len(faults)
    check_accounts(tmp_path / "out")


@pytest.mark.nightly
def test_a_model_that_waits_for_ever_is_ended_by_the_wall_clock(tmp_path: Path) -> None:
    (tmp_path / "only.wav").write_bytes(poisoned(12_347))
    run(tmp_path / "only.wav", tmp_path / "out", model="fake://poison", **PATIENCE)
    (row,) = rows(tmp_path / "out", "rejections")
    assert row["reason"] == "model_timeout" and "10 times 1 s" in row["detail"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=pytest.mark.nightly) if each == "infer-computes" else each for each in sorted(POISONS)],
)
def test_one_recording_alone_is_rejected_for_what_it_did(tmp_path: Path, name: str) -> None:
    value, reason = POISONS[name]
    (tmp_path / "only.wav").write_bytes(poisoned(value))
    run(tmp_path / "only.wav", tmp_path / "out", model="fake://poison", **PATIENCE)
    (row,) = rows(tmp_path / "out", "rejections")
    assert (row["stage"], row["reason"]) == ("infer", reason)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("infer-killed", "died on every"),
        pytest.param("infer-computes", "hung on every", marks=pytest.mark.nightly),
    ],
)
def test_a_model_that_harms_every_recording_of_a_part_is_no_recordings_fault(
    tmp_path: Path, name: str, told: str
) -> None:
    for number in range(2):
        (tmp_path / f"{number}.wav").write_bytes(poisoned(POISONS[name][0]))
    with pytest.raises(RunError, match=told):
        run(tmp_path / "*.wav", tmp_path / "out", model="fake://poison", **PATIENCE)


@pytest.mark.nightly
def test_what_was_hung_can_be_retried(tmp_path: Path) -> None:
    (tmp_path / "only.wav").write_bytes(poisoned(12_346))
    asked: dict[str, Any] = {"model": "fake://poison", "part_seconds": 60.0, **PATIENCE}
    run(tmp_path / "only.wav", tmp_path / "out", **asked)
    (tmp_path / "only.wav").write_bytes(encode(noise(2 * RATE)))
    run(tmp_path / "only.wav", tmp_path / "out", retry_rejected=True, **asked)
    assert rows(tmp_path / "out", "rejections") == [] and len(rows(tmp_path / "out", "recordings")) == 1


def test_a_busy_machine_is_no_hang(tmp_path: Path) -> None:
    """The model's process stands still for longer than it may compute, as under load, and then goes on."""
    for number in range(30):
        (tmp_path / f"{number:02d}.wav").write_bytes(encode(noise(RATE, seed=number)))
    stopped: list[int] = []

    def stop() -> None:
        deadline = time.monotonic() + 30
        while not stopped and time.monotonic() < deadline:
            for process in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if any("model_worker" in part for part in process.cmdline()):
                        process.suspend()
                        time.sleep(1.0)
                        process.resume()
                        stopped.append(process.pid)
            time.sleep(0.02)

    thread = threading.Thread(target=stop)
    thread.start()
    run(tmp_path, tmp_path / "out", model="fake://slow", **PATIENCE)
    thread.join()
    assert stopped and rows(tmp_path / "out", "rejections") == []
