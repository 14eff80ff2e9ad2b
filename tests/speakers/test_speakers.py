"""Who speaks: networks beside their originals, exact batches, conversations whose turns are known, and words of speakers."""

from __future__ import annotations

import importlib.util
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from audiomill.audio.cutting.segment import Segment
from audiomill.errors import ModelError, UsageError
from audiomill.models.base import LocalSpeaker
from audiomill.models.campplus.campplus_network import CamPlusPlus
from audiomill.models.locate import installed_path
from audiomill.models.restricted_unpickler import checkpoint_tensors, names_tensor
from audiomill.models.speakers.diarizer_family import embedder_of
from audiomill.speakers.attribution import with_speakers
from audiomill.speakers.clustering import BLOCK, SHORT_S, Rule, VoiceSpan, clustered
from tests.support.command_line import in_process
from tests.support.jobs_by_hand import loaded, rows, run
from tests.support.scale import daily
from tests.support.synth import encode, noise
from tests.support.talkers import RATE, clips_of, conversation, errors

SEGMENTATION, VOICES = "pyannote-segmentation-3.0", "campplus"


def original(file: str) -> Any:
    """A file of the package that carries the weights, without importing the package."""
    path = installed_path(VOICES)
    assert path is not None
    spec = importlib.util.spec_from_file_location("original", path.parents[2] / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def spoken(pcm_T: NDArray[np.int16], start: int = 0) -> Segment:
    return Segment(pcm_T, 0, 0, ("a", None), start, None)


@pytest.fixture(scope="module")
def diarizer() -> Any:
    from audiomill.models.base import DiarizationRequest

    return loaded(SEGMENTATION, turns=DiarizationRequest(voices=VOICES))


# ---- networks


def test_frames_are_those_of_the_original_segmentation_network(diarizer: Any) -> None:
    theirs = original("vad_local_pyannote/model.py").LocalPyanNet(
        7,
        {"stride": 10},
        {"hidden_size": 128, "num_layers": 4, "bidirectional": True, "monolithic": True},
        {"hidden_size": 128, "num_layers": 2},
    )
    path = installed_path(SEGMENTATION)
    assert path is not None
    theirs.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    wave_BT = torch.from_numpy(np.stack([clips_of(who)[0][:32_000] for who in ("en", "fr")])).float() / 32768
    network = diarizer._classifier.activity.__self__
    with torch.inference_mode():
        assert torch.allclose(theirs.eval()(wave_BT[:, None]), network(wave_BT), atol=1e-5)


def test_voice_vectors_are_those_of_the_original_network() -> None:
    path = installed_path(VOICES)
    assert path is not None
    tensors = torch.load(path, weights_only=True)
    theirs = original("camplusplus.py").CAMPPlus(80, 192)
    theirs.load_state_dict(tensors)
    ours = CamPlusPlus(192)
    ours.load_state_dict({name: tensors[name] for name in ours.state_dict()})
    for frames in (3, 99, 100, 101, 350):
        mel_BFM = torch.randn(2, frames, 80, generator=torch.Generator().manual_seed(frames))
        with torch.inference_mode():  # the package cuts negative values off, the paper's network does not
            assert torch.allclose(theirs.eval()(mel_BFM), ours.eval()(mel_BFM).relu(), atol=1e-5)


def test_dvectors_are_those_of_a_second_implementation() -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram

    path = installed_path("resemblyzer")
    assert path is not None
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    lstm.load_state_dict({name[5:]: value for name, value in state.items() if name.startswith("lstm.")})
    linear.load_state_dict({name[7:]: value for name, value in state.items() if name.startswith("linear.")})
    pcm_T = clips_of("en")[0]
    wave_T = np.pad(pcm_T / 32768, (0, 400))
    filters = mel_filter_bank(201, 40, 0.0, 8000.0, RATE, norm="slaney", mel_scale="slaney")
    mel_MF = spectrogram(
        wave_T, np.hanning(401)[:-1], 400, 160, 400, power=2.0, pad_mode="constant", mel_filters=filters
    )
    stretches = [torch.from_numpy(mel_MF.T[first : first + 160].copy()).float() for first in (0, 77, 154)]
    kept = [each for each in stretches if len(each) == 160][: 1 + (len(pcm_T) // 160 - 160 + 40) // 77]
    with torch.inference_mode():
        vectors = torch.nn.functional.normalize(linear(lstm(torch.stack(kept))[1][0][-1]).relu(), dim=1)
    expected = torch.nn.functional.normalize(vectors.mean(0), dim=0).numpy()
    found = embedder_of("resemblyzer", "cpu", {}).vectors([pcm_T])[0]
    assert np.isclose(float(expected @ found), 1.0, atol=2e-3) and np.isclose(np.linalg.norm(found), 1.0)


def test_the_same_person_is_near_and_others_are_far() -> None:
    people = {who: clips_of(who)[:2] for who in ("en", "fr", "it", "ja", "zh")}
    vectors = embedder_of(VOICES, "cpu", {}).vectors([clip for clips in people.values() for clip in clips])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = unit @ unit.T
    own = [near[2 * n, 2 * n + 1] for n in range(len(people))]
    others = [near[i, j] for i in range(len(near)) for j in range(i) if i // 2 != j // 2]
    assert min(own) > 0.7 and max(others) < 0.4


@settings(max_examples=daily(6, 40))
@given(st.lists(st.integers(300, 3 * RATE), min_size=1, max_size=4))
def test_a_vector_does_not_depend_on_what_is_beside_it(lengths: list[int]) -> None:
    embedder = EMBEDDER.setdefault("one", embedder_of(VOICES, "cpu", {}))
    pcm_T = clips_of("it")[0]
    rows_ = [pcm_T[:length] for length in lengths]
    together = embedder.vectors(rows_)
    for row, vector in zip(rows_, together, strict=True):
        alone = embedder.vectors([row])[0]
        assert np.linalg.norm(alone - vector) <= 1e-4 * np.linalg.norm(alone)


EMBEDDER: dict[str, Any] = {}


def test_who_is_heard_does_not_depend_on_the_batch(diarizer: Any) -> None:
    wave, _ = conversation("en fr en it", pause_s=0.3)
    batch = [
        spoken(wave[first : first + length])
        for first, length in ((0, 40_000), (20_000, 70_000), (60_000, 47_111), (0, 480))
    ]
    together = diarizer.forward(batch)
    for row, answer in zip(batch, together, strict=True):
        (alone,) = diarizer.forward([row])
        assert [a[:4] for a in answer.readout.local] == [b[:4] for b in alone.readout.local]
        for a, b in zip(answer.readout.local, alone.readout.local, strict=True):
            assert (a.vector_D is None) == (b.vector_D is None)
            if a.vector_D is not None and b.vector_D is not None:
                assert np.linalg.norm(a.vector_D - b.vector_D) <= 1e-4 * np.linalg.norm(b.vector_D)


def test_nothing_inside_a_checkpoint_is_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harmed",))

    path = tmp_path / "a.pt"
    source = installed_path(VOICES)
    assert source is not None
    torch.save({"state": torch.load(source, weights_only=True), "more": Harm()}, path)
    assert names_tensor(path, "head.conv1.weight") and len(checkpoint_tensors(path, "head.conv1.weight")) > 900
    assert not (tmp_path / "harmed").exists()
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = next(each for each in files if each.endswith("data.pkl"))
    harm = b"ctorch._utils\n_rebuild_tensor_v2\n(N}(S'__defaults__'\n(I1\ntstbtb."  # what would change torch's own function
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
        for each, content in files.items():
            archive.writestr(each, harm.replace(b"tstbtb.", b"tutb.") if each == name else content)
    with pytest.raises(ModelError):
        checkpoint_tensors(tmp_path / "c.pt", "head.conv1.weight")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"head.conv1.weight": Harm()}))
    with pytest.raises(ModelError, match=r"b\.pt"):
        checkpoint_tensors(tmp_path / "b.pt", "head.conv1.weight")
    assert not (tmp_path / "harmed").exists()


# ---- who is who


def people_around(centres: int, each: int, spread: float, seed: int = 0) -> tuple[NDArray[np.float32], list[int]]:
    random = np.random.default_rng(seed)
    middle = np.linalg.qr(random.normal(size=(64, max(centres, 2))))[0].T[:centres]
    order = random.permutation(np.repeat(np.arange(centres), each))
    return (middle[order] + spread * random.normal(size=(len(order), 64)) / 8).astype(np.float32), order.tolist()


def in_time(count: int) -> list[VoiceSpan]:
    return [VoiceSpan(0, 48_000 * n, 48_000 * n + 32_000) for n in range(count)]


@pytest.mark.parametrize(("people", "each"), [(1, 5), (2, 30), (7, 12), (30, 20), (3, daily(600, 4000))])
def test_everybody_is_found_however_many_they_are(people: int, each: int) -> None:
    vectors, truth = people_around(people, each, 0.4)
    found = clustered(vectors, np.full(len(vectors), 2.0), in_time(len(vectors)), Rule(0.56))
    assert len(set(found.tolist())) == people == len(set(zip(found.tolist(), truth, strict=True)))
    assert (found[0] == 0 and len(vectors) > BLOCK) or people != 3


def test_a_number_that_is_known_is_kept_and_a_most_is_not_exceeded() -> None:
    vectors, _ = people_around(4, 10, 0.4)
    seconds, places = np.full(40, 2.0), in_time(40)
    for number in (1, 2, 4, 6):
        assert len(set(clustered(vectors, seconds, places, Rule(0.56), num_speakers=number).tolist())) == number
    assert len(set(clustered(vectors, seconds, places, Rule(0.56), max_speakers=3).tolist())) == 3
    assert len(set(clustered(vectors, seconds, places, Rule(0.56), max_speakers=9).tolist())) == 4


def test_noise_is_not_taken_for_one_of_the_known_number() -> None:
    vectors, truth = people_around(2, 40, 0.4)
    vectors = np.concatenate([vectors, np.random.default_rng(9).normal(size=(1, 64)).astype(np.float32) / 8])
    for more in ({"num_speakers": 2}, {"max_speakers": 2}):
        found = clustered(vectors, np.full(81, 2.0), in_time(81), Rule(0.56), **more)
        assert len(set(zip(found[:80].tolist(), truth, strict=True))) == 2 and set(found.tolist()) == {0, 1}


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_hours_of_noise_end(spread: float) -> None:
    vectors, _ = people_around(3, 700, spread)
    found = clustered(vectors, np.full(len(vectors), 2.0), in_time(len(vectors)), Rule(0.56))
    assert len(found) == len(vectors) > BLOCK and found.min() == 0


@pytest.mark.parametrize(("second_s", "people"), [(10.0, 2), (SHORT_S + 0.1, 2), (SHORT_S - 0.1, 1)])
def test_a_short_cluster_is_joined_from_farther_away(second_s: float, people: int) -> None:
    """The mean of little speech lies as far from its speaker's as a single vector: between the two distances it is joined."""
    rule = Rule(0.48)
    distance = (rule.distance + rule.short_distance) / 2
    vectors = np.array([[1.0, 0.0], [1.0 - distance, np.sqrt(1 - (1 - distance) ** 2)]], np.float32)
    found = clustered(vectors, np.array([10.0, second_s]), in_time(2), rule)
    assert rule.centre_distance < rule.distance < distance < rule.short_distance and len(set(found.tolist())) == people


def test_who_speaks_at_once_is_not_one_person() -> None:
    vectors = np.ones((2, 8), np.float32)
    at_once = [VoiceSpan(0, 0, 32_000), VoiceSpan(0, 16_000, 48_000)]
    assert clustered(vectors, np.full(2, 2.0), at_once, Rule(0.56)).tolist() == [0, 1]
    apart = [VoiceSpan(0, 0, 16_000), VoiceSpan(0, 16_000, 48_000)]
    assert clustered(vectors, np.full(2, 2.0), apart, Rule(0.56)).tolist() == [0, 0]


def test_nobody_and_one_who_says_little_are_told(diarizer: Any) -> None:
    assert clustered(np.zeros((0, 8), np.float32), np.zeros(0), [], Rule(0.56)).tolist() == []
    little = clustered(np.ones((1, 8), np.float32), np.array([0.5]), in_time(1), Rule(0.56), num_speakers=3)
    assert little.tolist() == [0]
    answers = diarizer.forward([spoken(np.zeros(16_000, np.int16)), spoken(noise(400))])
    assert answers[0].readout.local == () and all(isinstance(each, LocalSpeaker) for each in answers[1].readout.local)


# ---- whose a word is

TURNS = [
    {"recording_id": "r", "channel": None, "speaker": "S1", "start_s": 0.0, "stop_s": 2.0},
    {"recording_id": "r", "channel": None, "speaker": "S2", "start_s": 1.5, "stop_s": 4.0},
]


def segment(words: list[tuple[float, float]] | None, start_s: float = 0.0, stop_s: float = 5.0) -> dict[str, Any]:
    told = None if words is None else [{"word": "w", "start_s": a, "stop_s": b} for a, b in words]
    return {"recording_id": "r", "channel": None, "start_s": start_s, "stop_s": stop_s, "words": told, "text": "w"}


def test_words_belong_to_who_speaks_longest_in_them() -> None:
    spans = [(0.1, 0.4), (1.4, 1.9), (1.8, 2.4), (3.0, 3.0), (4.2, 4.4), (4.9, 5.0)]
    (found,) = with_speakers([segment(spans)], TURNS)
    # At once: who was speaking goes on; without a length: as if there were one; beside all turns: the nearest, or the one before.
    assert [word["speaker"] for word in found["words"]] == ["S1", "S1", "S2", "S2", "S2", "S2"]
    assert found["speaker"] == "S2"
    (silent,) = with_speakers([segment(None, 0.0, 1.0)], TURNS)
    (empty,) = with_speakers([segment([], 9.0, 10.0)], TURNS)
    assert silent["speaker"] == "S1" and empty["speaker"] is None


@given(st.lists(st.tuples(st.floats(0, 4.4), st.floats(0, 0.5)), min_size=1, max_size=12))
def test_every_word_has_a_speaker_where_somebody_speaks(words: list[tuple[float, float]]) -> None:
    spans = sorted((start, start + length) for start, length in words)
    (found,) = with_speakers([segment(spans)], TURNS)
    assert all(word["speaker"] in ("S1", "S2") for word in found["words"]) and found["speaker"] in ("S1", "S2")


# ---- runs


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory, whisper: Path) -> dict[str, Any]:
    """Conversations in a folder, who said what in them, and what a run made of them."""
    root = tmp_path_factory.mktemp("talks")
    (root / "in").mkdir()
    said = {}
    for name, (order, more) in {
        "one": ("it it it", {}),
        "two": ("en fr en fr en fr", {"pause_s": 0.4}),
        "over": ("en ja en ja", {"overlap_s": 0.8, "pause_s": 0.0}),
        "four": ("en fr zh it en fr zh it", {"pause_s": 0.4, "noise_db": 20.0}),
    }.items():
        wave, said[name] = conversation(order, **more)  # type: ignore[arg-type]
        (root / "in" / f"{name}.wav").write_bytes(encode(wave))
    (root / "in" / "tiny.wav").write_bytes(encode(clips_of("en")[0][:600]))
    (root / "in" / "silence.wav").write_bytes(encode(np.zeros(16_000, np.int16)))
    run(
        root / "in",
        root / "out",
        model=str(whisper),
        speakers="auto",
        save_speaker_embeddings=True,
        verify_segments=2,
        part_seconds=600,
    )
    return {"root": root, "said": said, "out": root / "out"}


def turns_by_name(output: Path) -> dict[str, list[dict[str, Any]]]:
    names = {row["id"]: Path(row["source"]).stem for row in rows(output, "recordings")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
    for turn in rows(output, "turns"):
        found[names[turn["recording_id"]]].append(turn)
    return found


def test_turns_are_those_of_the_conversation(talks: dict[str, Any]) -> None:
    turns = turns_by_name(talks["out"])
    for name, said in talks["said"].items():
        error, count = errors(said, turns[name])
        assert count == len({each.who for each in said}) and error < 0.2, f"{name}: {error:.1%}, {count} speakers"
    assert turns["silence"] == []
    over = sum(turn["overlap_s"] for turn in turns["over"])
    assert over > 0.8 and sum(turn["overlap_s"] for turn in turns["two"]) < 0.2
    assert all(
        0 < turn["confidence"] <= 1 and turn["start_s"] < turn["stop_s"] for some in turns.values() for turn in some
    )
    durations = {Path(row["source"]).stem: row["duration_s"] for row in rows(talks["out"], "recordings")}
    assert all(turn["stop_s"] <= durations[name] for name, some in turns.items() for turn in some)


def test_every_speaker_has_a_row_and_every_word_a_speaker(talks: dict[str, Any]) -> None:
    speakers, turns = rows(talks["out"], "speakers"), rows(talks["out"], "turns")
    pairs = {(row["recording_id"], row["speaker"]) for row in speakers}
    assert pairs == {(turn["recording_id"], turn["speaker"]) for turn in turns} and len(pairs) == len(speakers)
    for row in speakers:
        mine = [
            turn for turn in turns if (turn["recording_id"], turn["speaker"]) == (row["recording_id"], row["speaker"])
        ]
        assert row["num_turns"] == len(mine) and row["speech_s"] <= sum(t["stop_s"] - t["start_s"] for t in mine) + 1e-6
        assert row["vector"] is None or np.isclose(np.linalg.norm(row["vector"]), 1.0, atol=1e-4)
    spoken = [row for row in rows(talks["out"], "segments") if row["speaker"] is not None]
    assert spoken and all((row["recording_id"], row["speaker"]) in pairs for row in spoken)
    words = [(row["recording_id"], word["speaker"]) for row in spoken for word in row["words"]]
    assert words and set(words) <= pairs


def test_segments_are_cut_where_the_speaker_changes_in_a_pause(talks: dict[str, Any]) -> None:
    names = {row["id"]: Path(row["source"]).stem for row in rows(talks["out"], "recordings")}
    turns = turns_by_name(talks["out"])["two"]
    own = [row for row in rows(talks["out"], "segments") if names[row["recording_id"]] == "two"]
    assert len(own) >= 5
    for row in own:
        inside = {
            t["speaker"] for t in turns if min(t["stop_s"], row["stop_s"]) - max(t["start_s"], row["start_s"]) > 0.3
        }
        assert len(inside) == 1, "one speaker a segment"
    recordings = {row["id"]: row for row in rows(talks["out"], "recordings")}
    for name, row in recordings.items():
        total = sum(s["stop_s"] - s["start_s"] for s in rows(talks["out"], "segments") if s["recording_id"] == name)
        assert np.isclose(total, row["speech_s"])


SURE = ("confidence", "probability", "avg_logprob", "no_speech_prob", "language_probability")
"""Of a text from a second attempt the last bits depend on how many rows stood beside it."""


def known(row: dict[str, Any]) -> dict[str, Any]:
    """A row to compare: all of it to the letter, but vectors, and what says how sure somebody is to a ten thousandth."""
    found = {name: pytest.approx(value, abs=1.5e-4) if name in SURE else value for name, value in row.items()}
    words = row.get("words")
    return found | {"vector": None} | ({} if words is None else {"words": [known(word) for word in words]})


@pytest.mark.nightly
def test_parts_do_not_matter_to_who_speaks(talks: dict[str, Any], tmp_path: Path, whisper: Path) -> None:
    run(
        talks["root"] / "in",
        tmp_path / "out",
        model=str(whisper),
        speakers="auto",
        save_speaker_embeddings=True,
        part_seconds=8,
    )
    for table in ("turns", "speakers", "segments"):
        key = "recording_id"
        one = sorted(
            rows(talks["out"], table), key=lambda row: (row[key], row.get("start_s", 0.0), row["speaker"] or "")
        )
        other = sorted(
            rows(tmp_path / "out", table), key=lambda row: (row[key], row.get("start_s", 0.0), row["speaker"] or "")
        )
        assert [known(row) for row in one] == [known(row) for row in other], table
        for a, b in zip(one, other, strict=True):
            if a.get("vector") is not None:
                assert np.allclose(a["vector"], b["vector"], atol=1e-4)


@pytest.mark.nightly
def test_the_number_of_threads_does_not_matter_to_a_bit(
    talks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        run(
            talks["root"] / "in" / "two.wav",
            tmp_path / threads,
            speakers="auto",
            save_speaker_embeddings=True,
            quality=True,
            dnsmos=False,
        )
    for table in ("turns", "speakers", "segments", "quality"):
        assert rows(tmp_path / "1", table) == rows(tmp_path / "2", table)


def test_channels_that_are_the_same_are_told(tmp_path: Path) -> None:
    one = clips_of("en")[0]
    (tmp_path / "a.wav").write_bytes(encode(np.stack([one, one], 1)))
    run(tmp_path / "a.wav", tmp_path / "out", speakers="channel", channels="split")
    (row,) = rows(tmp_path / "out", "recordings")
    assert "all 2 channels hold the same sound" in row["notes"]


def test_vectors_are_kept_only_where_that_is_asked(talks: dict[str, Any], tmp_path: Path) -> None:
    run(talks["root"] / "in" / "two.wav", tmp_path / "out", speakers="auto")
    for table in ("turns", "speakers"):
        assert all(row["vector"] is None for row in rows(tmp_path / "out", table))


def test_channels_are_speakers_without_a_model(tmp_path: Path, whisper: Path) -> None:
    one, two = clips_of("en")[0], clips_of("fr")[0]
    call = np.zeros((len(one) + len(two) + 8000, 2), np.int16)
    call[: len(one), 0], call[len(one) + 4000 : len(one) + 4000 + len(two), 1] = one, two
    (tmp_path / "call.wav").write_bytes(encode(call))
    (tmp_path / "mono.wav").write_bytes(encode(one))
    run(
        [tmp_path / "call.wav", tmp_path / "mono.wav"],
        tmp_path / "out",
        model=str(whisper),
        speakers="channel",
        channels="split",
    )
    turns = turns_by_name(tmp_path / "out")
    assert (
        {turn["speaker"] for turn in turns["call"]} == {"C0", "C1"} == {f"C{turn['channel']}" for turn in turns["call"]}
    )
    assert {turn["speaker"] for turn in turns["mono"]} == {"C0"}
    for row in rows(tmp_path / "out", "segments"):
        assert row["speaker"] == f"C{row['channel']}" and {word["speaker"] for word in row["words"]} == {row["speaker"]}
    assert all(row["vector"] is None and row["model"] is None for row in rows(tmp_path / "out", "speakers"))


def test_exports_tell_what_is_missing_and_tiers_lose_no_word(talks: dict[str, Any], tmp_path: Path) -> None:
    run(talks["root"] / "in" / "two.wav", tmp_path / "plain", report=False)
    for kind, told in (("rttm", "--speakers"), ("ctm", "words with times")):
        found = in_process(tmp_path, "export", "plain", "--format", kind)
        assert found.returncode != 0 and told in found.stderr and len(found.stderr.splitlines()) == 1
    for kind in ("rttm", "ctm", "TextGrid", "vtt"):
        assert in_process(tmp_path, "export", str(talks["out"]), "--format", kind, "--to", "files").returncode == 0
    turns = turns_by_name(talks["out"])
    for name, some in turns.items():
        lines = (tmp_path / "files" / f"{name}.rttm").read_text().splitlines()
        assert [(line.split()[7], float(line.split()[3])) for line in lines] == [
            (turn["speaker"], round(turn["start_s"], 3)) for turn in some
        ]
    words = [word for row in rows(talks["out"], "segments") for word in row["words"]]
    spoken = sum(len((tmp_path / "files" / f"{name}.ctm").read_text().splitlines()) for name in turns)
    in_tiers = "".join((tmp_path / "files" / f"{name}.TextGrid").read_text() for name in turns).count('text = "')
    assert spoken == len([word for word in words if word["word"].strip()]) and in_tiers >= spoken
    assert "<v S2>" in (tmp_path / "files" / "two.vtt").read_text()


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(noise(16_000)))
    base = ["transcribe", str(tmp_path / "a.wav"), "--model", "fake://", "--output", str(tmp_path / "out")]
    for more, told in (
        (["--speakers", "channel"], "add --channels split"),
        (["--num-speakers", "2"], "add --speakers auto"),
        (["--speakers", "auto", "--num-speakers", "2", "--max-speakers", "3"], "exclude each other"),
        (["--speakers", "auto", "--num-speakers", "0"], "above 0"),
        (["--speakers", "auto", "--diarizer", VOICES], "finds no speakers"),
        (["--speakers", "auto", "--speaker-model", SEGMENTATION], "makes no vectors of voices"),
        (["--save-speaker-embeddings"], "add --speakers auto"),
    ):
        found = in_process(tmp_path, *base, *more)
        assert found.returncode in (1, 2) and told in found.stderr and len(found.stderr.strip().splitlines()) == 1, more
    found = in_process(tmp_path, "embed", "a.wav", "--model", SEGMENTATION, "--output", "out")
    assert found.returncode == 2 and "--diarizer" in found.stderr


def test_weights_are_kept_as_safetensors(tmp_path: Path) -> None:
    for name in (VOICES, SEGMENTATION, "resemblyzer"):
        done = in_process(tmp_path, "models", name, "--save", f"kept-{name}")
        assert done.returncode == 0 and (tmp_path / f"kept-{name}" / "model.safetensors").exists(), done.stderr
    wave, _ = conversation("en fr en fr", pause_s=0.4)
    (tmp_path / "a.wav").write_bytes(encode(wave))
    kept = {"diarizer": tmp_path / f"kept-{SEGMENTATION}", "speaker_model": tmp_path / f"kept-{VOICES}"}
    run(tmp_path / "a.wav", tmp_path / "kept", speakers="auto", **kept)
    run(tmp_path / "a.wav", tmp_path / "own", speakers="auto")
    assert rows(tmp_path / "kept", "turns") == rows(tmp_path / "own", "turns")
    pcm_T = clips_of("en")[0]
    again = embedder_of(str(tmp_path / "kept-resemblyzer"), "cpu", {}).vectors([pcm_T])
    assert np.array_equal(again, embedder_of("resemblyzer", "cpu", {}).vectors([pcm_T]))


def test_models_before_segmentation_3_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = installed_path(SEGMENTATION)
    assert path is not None
    tensors = dict(torch.load(path, weights_only=True)["state_dict"])
    tensors["classifier.weight"], tensors["classifier.bias"] = tensors["classifier.weight"][:3].clone(), torch.zeros(3)
    (tmp_path / "old").mkdir()
    save_file(tensors, tmp_path / "old" / "model.safetensors")
    (tmp_path / "a.wav").write_bytes(encode(clips_of("en")[0]))
    with pytest.raises(ModelError, match=r"before segmentation 3\.0"):
        run(tmp_path / "a.wav", tmp_path / "out", speakers="auto", diarizer=tmp_path / "old")


@pytest.mark.nightly
def test_other_transcripts_have_speakers_too(tmp_path: Path, wav2vec2_folder: Path, whisper: Path) -> None:
    from audiomill.config.jobs import ModelTask, RunConfig
    from audiomill.config.run import OutputConfig
    from audiomill.config.speakers import SpeakersConfig
    from audiomill.config.stages import ModelConfig
    from audiomill.config.text import TranscriptConfig
    from audiomill.runs.job import run_job

    wave, _ = conversation("en fr en fr", pause_s=0.4)
    (tmp_path / "a.wav").write_bytes(encode(wave))
    output = OutputConfig(output=str(tmp_path / "out"), quiet=True)
    config = RunConfig(inputs=(str(tmp_path / "a.wav"),), output=output, speakers=SpeakersConfig(speakers="auto"))
    tasks = [
        ModelTask(model=ModelConfig(model=str(each)), transcripts=TranscriptConfig())
        for each in (whisper, wav2vec2_folder)
    ]
    run_job(config.job(tasks), Console(quiet=True))
    words = [word for row in rows(tmp_path / "out", "transcripts") for word in row["words"]]
    assert words and {word["speaker"] for word in words} == {"S1", "S2"}
    found = in_process(tmp_path, "export", "out", "--format", "TextGrid", "--transcript", "2", "--to", "grids")
    assert found.returncode == 0 and '"S1 words"' in (tmp_path / "grids" / "a.TextGrid").read_text()


def test_outputs_of_earlier_versions_are_read(talks: dict[str, Any], tmp_path: Path) -> None:
    """Without speakers in segments and words."""
    run(talks["root"] / "in" / "two.wav", tmp_path / "out", model="fake://", report=False)
    (path,) = (tmp_path / "out" / "segments").glob("*.parquet")
    table = pq.read_table(path).drop_columns(["speaker"])
    kind = pa.list_(
        pa.struct([field for field in table.schema.field("words").type.value_type if field.name != "speaker"])
    )
    old = table.set_column(table.schema.get_field_index("words"), "words", table.column("words").cast(kind))
    pq.write_table(old, path)
    for job in (["report", "out"], ["inspect", "out"], ["export", "out", "--format", "jsonl"]):
        assert in_process(tmp_path, *job).returncode == 0, job


def test_a_voice_model_embeds_segments_and_recordings(tmp_path: Path) -> None:
    wave, _ = conversation("it it")
    (tmp_path / "a.wav").write_bytes(encode(wave))
    run(tmp_path / "a.wav", tmp_path / "whole", "embed", model=VOICES, dtype="fp32")
    run(tmp_path / "a.wav", tmp_path / "cut", "embed", model="resemblyzer", segment="vad", l2_normalize=True)
    (row,) = rows(tmp_path / "whole", "embeddings")
    expected = embedder_of(VOICES, "cpu", {}).vectors([wave])[0]
    assert np.allclose(row["values"], expected, atol=1e-5) and row["pool"] == "mean"
    assert all(len(row["values"]) == 256 for row in rows(tmp_path / "cut", "embeddings"))
    with pytest.raises(UsageError, match="one vector of a segment"):
        run(tmp_path / "a.wav", tmp_path / "no", "embed", model=VOICES, pool="max")


# ---- Nemotron 3 Diarization


@pytest.fixture(scope="module")
def nemotron(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one with random weights that tell people apart by chance."""
    from transformers import (
        Nemotron3DiarizationConfig,
        Nemotron3DiarizationForAudioFrameClassification,
        NemotronAsrStreamingFeatureExtractor,
    )

    folder = tmp_path_factory.mktemp("nemotron")
    torch.manual_seed(3)
    config = Nemotron3DiarizationConfig(
        audio_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        head_config={"hidden_size": 16, "audio_hidden_size": 32},
        chunk_length=40,
        chunk_right_context=8,
        fifo_length=8,
        speaker_cache_update_period=30,
        initializer_range=0.6,
    )
    Nemotron3DiarizationForAudioFrameClassification(config).save_pretrained(folder)
    NemotronAsrStreamingFeatureExtractor(feature_size=128).save_pretrained(folder)
    return folder


def test_nemotron_s_frames_are_those_of_transformers_alone(nemotron: Path, tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor, AutoModelForAudioFrameClassification

    from audiomill.models.base import DiarizationRequest

    ours = loaded(nemotron, turns=DiarizationRequest(voices=VOICES))
    model = AutoModelForAudioFrameClassification.from_pretrained(nemotron).eval()
    extractor = AutoFeatureExtractor.from_pretrained(nemotron)
    wave, _ = conversation("en fr it")
    for length in (70_000, 41_234, 3_000):
        clips = [wave[:length], wave[5_000 : 5_000 + length]]
        wave_BT = torch.from_numpy(np.stack(clips)).float() / 32768
        with torch.inference_mode():
            together, active = ours._classifier.activity(wave_BT)
            for row, clip in enumerate(clips):
                given = extractor(clip.astype(np.float32) / 32768, sampling_rate=RATE, return_tensors="pt")
                alone = model(**given).logits.sigmoid()[0, : int(given["attention_mask"].sum())]
                assert torch.allclose(together[row], alone, atol=1e-4) and torch.equal(active[row], together[row] > 0.5)
                assert 0 < active[row].float().mean() < 1
    (tmp_path / "a.wav").write_bytes(encode(wave))
    run(tmp_path / "a.wav", tmp_path / "out", speakers="auto", diarizer=str(nemotron))
    assert rows(tmp_path / "out", "turns") and rows(tmp_path / "out", "speakers")
