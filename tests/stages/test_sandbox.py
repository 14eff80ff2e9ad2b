"""The decode process: it may hang, crash, run out of memory or be killed, and only its recording suffers."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import DecodeConfig
from audiomill.errors import InputError, RecordingRejected
from audiomill.sources.listing import list_inputs
from audiomill.stages.read import Finished
from audiomill.stages.sandbox import Decoder
from tests.support.synth import RATE, cutting, encode, tone

SPEC = cutting("fixed")
BLANK = {
    "id": "x", "member": "", "kind": "file", "position": 0, "size": None, "span_start_s": None, "span_duration_s": None,
    "track": None, "channel": None, "reference": None, "language": None, "metadata": None, "sidecars": None, "reason": None, "detail": None,
}  # fmt: skip


def row(path: Path) -> dict[str, Any]:
    return {**BLANK, "source": str(path)}


@pytest.fixture
def decoder() -> Any:
    made = Decoder(DecodeConfig(decode_timeout=2.0), SPEC, {})
    yield made
    made.close()


@pytest.fixture
def impatient() -> Any:
    """Kills a decoder that has waited for three seconds."""
    made = Decoder(DecodeConfig(decode_timeout=0.3), SPEC, {})
    yield made
    made.close()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    (tmp_path / "long.flac").write_bytes(encode(np.random.default_rng(0).normal(0, 0.1, RATE * 300), RATE, "FLAC"))
    return tmp_path / "long.flac"


def samples(events: list[Any]) -> Any:
    return np.concatenate([e.pcm_T for e in events if isinstance(e, Segment)])


def test_segments_pass_through_unchanged(decoder: Decoder, tmp_path: Path) -> None:
    pcm = np.random.default_rng(0).integers(-9000, 9000, RATE * 70).astype(np.int16)
    (tmp_path / "x.wav").write_bytes(encode(pcm))
    events = list(decoder.read(row(tmp_path / "x.wav")))
    assert np.array_equal(samples(events), pcm) and events[-1].ending.num_samples == len(pcm)


def test_a_hanging_read_is_killed_and_named_and_the_next_recording_is_read(impatient: Decoder, tmp_path: Path) -> None:
    (tmp_path / "ok.wav").write_bytes(encode(tone(1.0)))
    (tmp_path / "x.wav").write_bytes(encode(tone(1.0)))
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent to us when somebody wants the file
    with (tmp_path / "x.wav").open("r+b") as leased:  # opening it blocks until we give the lease back
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(RecordingRejected, match=r"within 10 times 0\.3 s") as caught:
            list(impatient.read(row(tmp_path / "x.wav")))
    assert caught.value.reason == "time_limit"
    assert len(list(impatient.read(row(tmp_path / "ok.wav")))) == 2


@pytest.mark.timeout(20)
def test_a_pipe_is_named_and_not_waited_for(decoder: Decoder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(RecordingRejected, match="a pipe; write its audio to a file") as caught:
        list(decoder.read(row(tmp_path / "pipe.wav")))
    assert caught.value.reason == "unreadable"
    with pytest.raises(InputError, match="got a pipe"):
        list_inputs((str(tmp_path / "pipe.wav"),), {}, None, "/nowhere")


@pytest.mark.parametrize(("doing", "ended_by"), [("pass", signal.SIGPROF), ("time.sleep(60)", signal.SIGALRM)])
def test_what_computes_without_progress_is_ended_and_what_waits_only_much_later(doing: str, ended_by: int) -> None:
    code = f"import time; from audiomill.stages import decode_worker as w; w._expect_progress_within(0.2)\nwhile 1: {doing}"
    before = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -ended_by
    assert ended_by == signal.SIGPROF or time.monotonic() - before > 2


def test_a_machine_that_is_busy_with_something_else_rejects_nothing(impatient: Decoder, recording: Path) -> None:
    events, process = [], None
    for event in impatient.read(row(recording)):
        events.append(event)
        if process is None:
            process = impatient._process
            assert process is not None
            os.kill(process.pid, signal.SIGSTOP)
            threading.Timer(1.0, os.kill, [process.pid, signal.SIGCONT]).start()
    assert impatient._process is process, "one process read all of it"
    assert isinstance(events[-1], Finished)


def test_too_little_memory_is_a_rejection(recording: Path) -> None:
    decoder = Decoder(DecodeConfig(decode_memory_gb=0.05), SPEC, {})
    with pytest.raises(RecordingRejected) as caught:
        list(decoder.read(row(recording)))
    assert caught.value.reason in ("memory_limit", "decoder_crashed")
    decoder.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_decoder_is_replaced_and_nothing_is_lost_or_doubled(
    decoder: Decoder, recording: Path, number: int
) -> None:
    expected = samples(list(decoder.read(row(recording))))
    events = []
    for event in decoder.read(row(recording)):
        events.append(event)
        if len(events) == 3:
            os.kill(decoder._process.pid, number)  # type: ignore[union-attr]
    assert np.array_equal(samples(events), expected)


def test_a_decoder_that_always_dies_rejects_its_recording(decoder: Decoder, recording: Path) -> None:
    stop = threading.Event()

    def assassin() -> None:
        while not stop.is_set():
            process = decoder._process
            if process is not None:
                os.kill(process.pid, signal.SIGSEGV)
            time.sleep(0.01)

    thread = threading.Thread(target=assassin)
    thread.start()
    try:
        with pytest.raises(RecordingRejected) as caught:
            list(decoder.read(row(recording)))
    finally:
        stop.set()
        thread.join()
    assert caught.value.reason == "decoder_crashed" and "SIGSEGV" in caught.value.detail


def test_a_reader_that_stops_listening_does_not_confuse_the_next_answer(
    decoder: Decoder, recording: Path, tmp_path: Path
) -> None:
    (tmp_path / "ok.wav").write_bytes(encode(tone(1.0)))
    for _ in decoder.read(row(recording)):
        break
    (cut, _) = decoder.read(row(tmp_path / "ok.wav"))
    assert cut.stop == RATE


@pytest.mark.parametrize(("name", "reason"), [("missing.wav", "not_found"), ("folder.wav", "unreadable")])
def test_what_cannot_be_opened_is_named(decoder: Decoder, tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(RecordingRejected) as caught:
        list(decoder.read(row(tmp_path / name)))
    assert (caught.value.stage, caught.value.reason) == ("read", reason)
