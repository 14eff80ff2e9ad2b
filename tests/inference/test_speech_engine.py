"""A model in memory answers what its job writes, whatever form the sound comes in."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from numpy.typing import NDArray

import audiomill
from audiomill.errors import ModelError, RecordingRejected, UsageError
from audiomill.inference import speech_engine
from audiomill.inference.answers import Rejection, Transcription
from audiomill.inference.audio_inputs import memory_input
from audiomill.inference.speech_engine import SpeechEngine

RATE = 16_000


@pytest.fixture(scope="module")
def whisper_engine(whisper: Path) -> Iterator[SpeechEngine]:
    with audiomill.load(whisper, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def engine() -> Iterator[SpeechEngine]:
    """Its texts follow from the samples, at once."""
    with audiomill.load("fake://", segment="none") as opened:
        yield opened


@pytest.fixture(scope="module")
def clip(voices: Any) -> NDArray[np.int16]:
    result: NDArray[np.int16] = voices[0][0][: 2 * RATE]
    return result


@pytest.fixture(scope="module")
def files(voices: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    sounds = {"one": voices[0][0], "two": voices[1][0], "three": voices[0][0][: 2 * RATE]}
    for name, pcm_T in sounds.items():
        soundfile.write(folder / f"{name}.flac", pcm_T, RATE)
    return [str(folder / f"{name}.flac") for name in sounds]


@pytest.fixture(scope="module")
def expected(engine: SpeechEngine, clip: NDArray[np.int16]) -> pa.Table:
    return engine.transcribe(clip, rate=RATE).to_arrow()


def job_tables(job: str, files: list[str], output: Path, **options: Any) -> dict[str, pa.Table]:
    audiomill.run(job, files, output=output, engine="local", report=False, verify_segments=0, **options)
    return {folder.name: pq.read_table(folder) for folder in output.iterdir() if list(folder.glob("*.parquet"))}


def wav(pcm_T: NDArray[Any], rate: int = RATE) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, pcm_T, rate, format="WAV")
    return sink.getvalue()


def test_answers_are_the_rows_of_the_job(
    whisper_engine: SpeechEngine, whisper: Path, files: list[str], tmp_path: Path
) -> None:
    written = job_tables("transcribe", files, tmp_path / "out", model=str(whisper))
    answers = list(whisper_engine.transcribe(files))
    assert pa.concat_tables([each.to_arrow() for each in answers]).to_pylist() == written["segments"].to_pylist()
    recordings = [each.to_arrow("recordings").to_pylist()[0] for each in answers]
    assert recordings == written["recordings"].to_pylist()
    assert [each.text for each in answers] == written["recordings"].column("text").to_pylist()
    assert [len(each.words) for each in answers] == [len(row["words"]) for row in written["segments"].to_pylist()]


def test_vectors_and_codes_are_those_of_the_job(wav2vec2_folder: Path, files: list[str], tmp_path: Path) -> None:
    model = str(wav2vec2_folder)
    written = job_tables("embed", files, tmp_path / "out", model=model, layers="1,2", dtype="fp32")
    with audiomill.load(model, device="cpu") as engine:
        answers = list(engine.embed(files, layers="1,2", dtype="fp32"))
    rows = written["embeddings"].to_pylist()
    found = [vectors for answer in answers for vectors in answer.vectors]
    assert [(each.segment_id, each.layer) for each in found] == [(row["segment_id"], row["layer"]) for row in rows]
    for vectors, row in zip(found, rows, strict=True):
        np.testing.assert_allclose(vectors.values, np.array(row["values"]), atol=1e-5)
    assert answers[0].to_dict()["vectors"][0]["values"] == found[0].values.tolist()


@pytest.mark.parametrize(
    "form",
    [
        "int16",
        "int32",
        "float32",
        "float64",
        "torch",
        "bytes",
        "open file",
        "pair",
        "pair of torchaudio",
        "audio column",
        "bytes column",
    ],
)
def test_the_form_of_the_sound_does_not_matter(
    engine: SpeechEngine, clip: NDArray[np.int16], expected: pa.Table, form: str
) -> None:
    forms: dict[str, Any] = {
        "int16": clip,
        "int32": clip.astype(np.int32) << 16,
        "float32": (clip / 32_768).astype(np.float32),
        "float64": clip / 32_768,
        "torch": torch.from_numpy(clip / 32_768)[None],
        "bytes": wav(clip),
        "open file": io.BytesIO(wav(clip)),
        "pair": (clip, RATE),
        "pair of torchaudio": (RATE, torch.from_numpy(clip)[None]),
        "audio column": {"array": clip / 32_768, "sampling_rate": RATE, "path": "gone.wav"},
        "bytes column": {"bytes": wav(clip), "path": None},
    }
    assert engine.transcribe(forms[form], rate=RATE).to_arrow() == expected


class Decoded:
    """As torchcodec's: channels first."""

    def __init__(self, data: torch.Tensor, sample_rate: float) -> None:
        self.data, self.sample_rate = data, sample_rate

    def get_all_samples(self) -> Decoded:
        return self


@pytest.mark.parametrize(
    ("audio", "rate", "seconds"),
    [
        (np.arange(8_000, dtype=np.int16), 8_000, 1.0),  # SYSTRAN/faster-whisper#1323: telephone sound
        (np.zeros((48_000, 2), np.float32), 48_000, 1.0),  # m-bain/whisperX#752, faster-whisper#1253: of sounddevice
        (np.zeros((22_050, 1), np.int16), 22_050, 1.0),  # gudgud96/frechet-audio-distance#1: of soundfile
        (torch.zeros(1, RATE, requires_grad=True), RATE, 1.0),  # faster-whisper#523
        (torch.zeros(RATE, dtype=torch.bfloat16), RATE, 1.0),
        (np.zeros(RATE, np.float16), RATE, 1.0),
        (Decoded(torch.zeros(1, 2 * RATE), 16_000.0), None, 2.0),  # huggingface/transformers#39504
        (Decoded(torch.zeros(2, 2 * RATE), 16_000.0), None, 2.0),
        ([0.0] * RATE, RATE, 1.0),
        ([0] * RATE, RATE, 1.0),
    ],
)
def test_forms_that_people_report(engine: SpeechEngine, audio: Any, rate: int | None, seconds: float) -> None:
    assert engine.transcribe(audio, rate=rate).duration_s == seconds
    (answer,) = engine.transcribe(iter([audio]), rate=rate)
    assert isinstance(answer, Transcription) and answer.duration_s == seconds


def test_channels_may_come_first_or_last(engine: SpeechEngine, voices: Any) -> None:
    one = voices[0][0][: 2 * RATE]
    two = one[::-1].copy()
    answers = list(engine.transcribe([np.stack([one, two]), np.stack([one, two], axis=1)], rate=RATE, channels="split"))
    texts = [[segment.text for segment in answer.segments] for answer in answers]
    assert texts[0] == texts[1] and {segment.channel for segment in answers[0].segments} == {0, 1}


@pytest.mark.parametrize(
    ("audio", "rate", "reason", "says"),
    [
        (np.zeros(100, np.float32), None, "invalid_array", "rate=16000"),
        (np.zeros(16_000, np.float32), 16, "invalid_array", "not in thousands"),
        (np.zeros(16_000, np.float32), 16_000.5, "invalid_array", "16000.5"),
        (np.full(16_000, 3_000.0), RATE, "invalid_array", "divide by full scale"),
        (np.full(16_000, np.nan), RATE, "nan_samples", "NaN"),
        (np.zeros(0, np.float32), RATE, "no_samples", ""),
        (np.zeros((0, 2), np.float32), RATE, "no_samples", ""),
        (np.zeros((100, 100), np.float32), RATE, "invalid_array", "channels"),
        (np.zeros((2, 3, 4)), RATE, "invalid_array", "one recording at a time"),
        (np.zeros(100, np.complex64), RATE, "invalid_array", "complex64"),
        (np.zeros(100, np.bool_), RATE, "invalid_array", "bool"),
        (np.zeros(100, np.uint16), RATE, "invalid_array", "uint16"),
        (object(), RATE, "invalid_array", "object"),
        (None, RATE, "invalid_array", "NoneType"),
        ({}, RATE, "invalid_array", "sampling_rate"),  # kyegomez/swarms#220
        ({"text": "no sound"}, RATE, "invalid_array", "sampling_rate"),
        (io.StringIO("text"), RATE, "invalid_array", "reading bytes"),
        (b"", RATE, "empty", ""),
        (b"no audio at all, and long enough to be looked at", RATE, "not_audio", ""),
        ("gone.wav", RATE, "not_found", "gone.wav"),
    ],
)
def test_what_is_no_audio_is_a_rejection_in_a_list_and_an_error_alone(
    engine: SpeechEngine, audio: Any, rate: Any, reason: str, says: str
) -> None:
    (rejection,) = engine.transcribe([audio], rate=rate)
    assert isinstance(rejection, Rejection) and rejection.reason == reason and says in rejection.detail
    if isinstance(audio, io.StringIO):
        audio.seek(0)
    with pytest.raises(RecordingRejected, match=reason):
        engine.transcribe(audio, rate=rate)


def test_the_smallest_sound_is_answered(engine: SpeechEngine) -> None:
    answers = list(engine.transcribe([np.zeros(RATE, np.int16), np.ones(1, np.int16)], rate=RATE))
    assert isinstance(answers[0], Transcription)
    assert isinstance(answers[1], Rejection) and answers[1].reason == "too_short"
    assert list(engine.transcribe([])) == []


def test_what_came_before_an_error_of_the_iterator_is_answered(engine: SpeechEngine, clip: NDArray[np.int16]) -> None:
    def broken() -> Iterator[Any]:
        yield clip, RATE
        raise KeyError("of the caller")

    answers = engine.transcribe(broken())
    assert next(answers).text
    with pytest.raises(KeyError, match="of the caller"):
        next(answers)


def test_answers_come_in_order_lazily_and_twice_for_a_recording_that_comes_twice(
    engine: SpeechEngine, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_engine, "GROUP_RECORDINGS", 2)
    taken: list[str] = []

    def names() -> Iterator[str]:
        for name in [files[0], files[0], files[1], "gone.wav", files[2]]:
            taken.append(name)
            yield name

    answers = engine.transcribe(names())
    first = next(answers)
    assert len(taken) == 2
    rest = list(answers)
    assert (
        rest[0].text == first.text
        and [each.source for each in rest if isinstance(each, Transcription)] == files[:1] + files[1:]
    )
    assert isinstance(rest[2], Rejection) and rest[2].source.endswith("gone.wav")


@pytest.mark.nightly
def test_in_processes_of_its_own_it_answers_the_same(
    engine: SpeechEngine, files: list[str], clip: NDArray[np.int16]
) -> None:
    inputs = [files[1], (clip, RATE), b"no audio"]
    with audiomill.load("fake://", segment="none", isolate=True) as isolated:
        answers = list(isolated.transcribe(inputs))
    expected = list(engine.transcribe(inputs))
    assert [each.to_arrow() for each in answers[:2]] == [each.to_arrow() for each in expected[:2]]
    assert answers[2].reason == expected[2].reason == "not_audio"


@pytest.mark.parametrize(
    ("value", "reason"), [(12_345, "worker_crashed"), pytest.param(12_346, "model_timeout", marks=pytest.mark.nightly)]
)
def test_a_recording_that_harms_its_model_process_is_rejected_alone(
    clip: NDArray[np.int16], value: int, reason: str
) -> None:
    """ray-project/ray#45661: one that takes for ever."""
    poison = np.full(2 * RATE, value, np.int16)
    with audiomill.load("fake://poison", segment="none", isolate=True, model_timeout=1.0) as engine:
        answers = list(engine.transcribe([clip, poison, clip[::-1]], rate=RATE))
    assert [getattr(each, "reason", None) for each in answers] == [None, reason, None]
    assert answers[0].text and answers[2].text


def test_threads_take_turns(engine: SpeechEngine, files: list[str]) -> None:
    answers: dict[str, str] = {}

    def run(name: str) -> None:
        answers[name] = engine.transcribe(name).text

    threads = [threading.Thread(target=run, args=(name,)) for name in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {name: engine.transcribe(name).text for name in files}


def test_an_engine_that_cannot_be_used_says_what_to_do(
    clip: NDArray[np.int16],
) -> None:
    with pytest.raises(UsageError, match="did you mean language"):
        audiomill.load("fake://", langage="en")
    with pytest.raises(ModelError, match="no-such-folder"):
        audiomill.load("./no-such-folder")
    engine = audiomill.load("fake://")
    with pytest.raises(UsageError, match="did you mean language"):
        engine.transcribe(clip, rate=RATE, langage="en")
    engine._pid = os.getpid() + 1
    with pytest.raises(UsageError, match="another process"):
        engine.transcribe(clip, rate=RATE)
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.transcribe(clip, rate=RATE)
    assert "closed" in repr(engine)


def test_hours_in_memory_are_a_file_that_may_be_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiomill.inference.audio_inputs.MAX_WAV_BYTES", 1_000)
    result = memory_input(np.arange(2_000, dtype=np.int16), 0, RATE)
    assert result.content is not None and result.content[:4] == b"RF64"
    samples, rate = soundfile.read(io.BytesIO(result.content), dtype="int16")
    assert rate == RATE and (samples == np.arange(2_000)).all()
