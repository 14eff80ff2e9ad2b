"""How segments sound: known signals, the original's opinion, tags of transformers, and conditions on all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment
from audiomill.audio.sound_measures import Signal, measured
from audiomill.audio.vad import voiced_frames
from audiomill.errors import InputError, UsageError
from audiomill.models.sound_quality.dnsmos import opinion
from audiomill.tables.conditions import conditions_of
from tests.support.command_line import in_process
from tests.support.jobs_by_hand import loaded, rows, run
from tests.support.synth import encode, noise, tone
from tests.support.talkers import RATE, clips_of


def signal_of(wave_T: NDArray[Any]) -> Signal:
    pcm_T = wave_T if wave_T.dtype == np.int16 else np.rint(np.clip(wave_T, -1, 1) * 32767).astype(np.int16)
    return measured(pcm_T, voiced_frames(pcm_T, 0.5).tobytes())


def clean() -> NDArray[np.float64]:
    return np.concatenate([clips_of("en")[0], clips_of("it")[0]]) / 32768


@pytest.mark.parametrize("level_db", [0, 10, 20, 30])
def test_noise_that_was_added_is_the_noise_that_is_told(level_db: int) -> None:
    wave = clean()
    vad_mask = np.repeat(voiced_frames(np.rint(wave * 32767).astype(np.int16), 0.5).astype(bool), 512)[: len(wave)]
    power = np.square(wave[vad_mask]).mean()
    made = np.random.default_rng(0).normal(0, np.sqrt(power / 10 ** (level_db / 10)), len(wave) + RATE)
    made[RATE // 2 : RATE // 2 + len(wave)] += wave
    found = signal_of(made).snr_db
    assert found is not None and abs(found - level_db) < 1.5
    silent = np.concatenate([made, np.zeros(2 * RATE)])
    assert signal_of(silent).snr_db == pytest.approx(found, abs=0.5), "digital silence is no noise"


def test_clipping_bandwidth_loudness_and_silence_of_known_signals() -> None:
    square = np.clip(4 * tone(1.0), -1, 1)
    assert signal_of(square).clipped_share > 0.6 and signal_of(tone(1.0)).clipped_share == 0
    for cut in (1000, 2000, 3400, 8000):
        hiss = np.random.default_rng(0).normal(0, 0.1, RATE)
        narrow = hiss if cut == 8000 else soxr.resample(soxr.resample(hiss, RATE, 2 * cut, "VHQ"), 2 * cut, RATE, "VHQ")
        assert abs(signal_of(narrow).bandwidth_hz - cut) < 200
    full = signal_of(np.concatenate([tone(1.0, 997.0)] * 3))
    assert full.loudness_lufs == pytest.approx(
        -9.0, abs=0.15
    )  # BS.1770: 997 Hz at full scale is -3.01 in one channel; half: -6.02
    nothing = signal_of(np.zeros(RATE, np.int16))
    assert nothing == Signal(None, 0.0, 0.0, None, 1.0) and signal_of(np.zeros(400, np.int16)).loudness_lufs is None
    half = signal_of(np.concatenate([clean(), np.zeros(len(clean()))]))
    assert 0.4 < half.silence_share < 0.6


@pytest.mark.parametrize("num_samples", [1, 400, 512, 1024, 1500])
def test_the_shortest_clips_are_measured(num_samples: int) -> None:
    for pcm in (noise(num_samples), np.zeros(num_samples, np.int16)):
        assert 0 <= measured(pcm, b"\1" * -(-num_samples // 512)).silence_share <= 1


def test_opinions_are_those_of_the_original() -> None:
    clips = [clips_of("en")[0], clips_of("en")[1]]
    joined = np.tile(np.concatenate(clips), 3)[: int(9.01 * RATE)]
    assert opinion(joined) == pytest.approx(DNSMOS_OF_JOINED, abs=0.003)
    assert all(
        np.isfinite(value) for pcm in (np.zeros(RATE, np.int16), noise(300), joined[:RATE]) for value in opinion(pcm)
    )


DNSMOS_OF_JOINED = (3.659, 4.1634, 3.4287, 4.0925)
"""Of speechmos 0.0.1.1, `dnsmos.run` on the same samples: signal, background, overall, P.808."""


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small AST with random weights."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    folder = tmp_path_factory.mktemp("ast")
    torch.manual_seed(0)
    names = {0: "Speech", 1: "Music", 2: "Noise", 3: "Singing"}
    config = ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        id2label=names,
        label2id={v: k for k, v in names.items()},
    )
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor().save_pretrained(folder)
    return folder


def test_tags_are_those_of_transformers_alone_and_do_not_depend_on_the_batch(tagger: Path) -> None:
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

    model, extractor = (
        ASTForAudioClassification.from_pretrained(tagger).eval(),
        ASTFeatureExtractor.from_pretrained(tagger),
    )
    ours = loaded(tagger, tags=3)
    clips = [
        clips_of("en")[0],
        clips_of("zh")[0],
        noise(500),
        np.tile(clips_of("it")[0], 5),
        np.tile(clips_of("it")[0], 5)[:163_850],
    ]
    batch = [Segment(clip, 0, 0, ("a", None), 0, None) for clip in clips]
    for clip, answer, alone in zip(clips, ours.forward(batch), map(lambda u: ours.forward([u])[0], batch), strict=True):
        parts = [clip[at : at + 163_840] for at in range(0, len(clip), 163_840)]
        parts = [np.pad(part, (0, max(0, 400 - len(part)))) for part in parts]
        with torch.inference_mode():
            likely = [
                model(**extractor(part.astype(np.float32) / 32768, sampling_rate=RATE, return_tensors="pt"))
                .logits[0]
                .sigmoid()
                for part in parts
            ]
        mean = torch.stack(likely).mean(0)
        best = mean.argsort(descending=True)[:3].tolist()
        assert [name for name, _ in answer.readout.tags] == [model.config.id2label[at] for at in best]
        assert [p for _, p in answer.readout.tags] == pytest.approx(mean[best].tolist(), abs=2e-4)
        assert [p for _, p in alone.readout.tags] == pytest.approx([p for _, p in answer.readout.tags], abs=2e-4)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory, tagger: Path) -> Path:
    """An output of clean and noisy speech with its quality."""
    root = tmp_path_factory.mktemp("sounds")
    (root / "in").mkdir()
    for name, level in (("clean", 0.0), ("noisy", 0.05)):
        wave = clean() + np.random.default_rng(1).normal(0, level, len(clean()))
        (root / "in" / f"{name}.wav").write_bytes(encode(np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int16)))
    run(root / "in", root / "out", quality=True, tagger=str(tagger), num_tags=2, verify_segments=1)
    return root / "out"


def test_every_segment_has_its_quality(sounds: Path) -> None:
    found = {row["segment_id"]: row for row in rows(sounds, "quality")}
    names = {row["id"]: Path(row["source"]).stem for row in rows(sounds, "recordings")}
    assert set(found) == {row["id"] for row in rows(sounds, "segments")} and len(found) >= 2
    by_name = {name: [row for row in found.values() if names[row["recording_id"]] == name] for name in names.values()}
    assert min(row["snr_db"] for row in by_name["clean"]) > max(row["snr_db"] for row in by_name["noisy"])
    assert all(1 <= row["dnsmos_overall"] <= 5 and len(row["tags"]) == 2 for row in found.values())
    assert max(r["dnsmos_background"] for r in by_name["noisy"]) < min(r["dnsmos_background"] for r in by_name["clean"])


def test_conditions_choose_segments_for_exports_and_selections(sounds: Path, tmp_path: Path) -> None:
    found = in_process(tmp_path, "export", str(sounds), "--format", "csv", "--where", "snr_db>=12, bandwidth_hz>1000")
    lines = found.stdout.splitlines()[1:]
    assert found.returncode == 0, found.stderr
    expected = sum(row["snr_db"] >= 12 and row["bandwidth_hz"] > 1000 for row in rows(sounds, "quality"))
    assert len(lines) == expected > 0 and all("clean.wav" in line for line in lines)
    chosen = in_process(
        tmp_path, "select", str(sounds), "--where", "snr_db<12", "--max-chars-per-second", "1000", "--output", "sel"
    )
    assert chosen.returncode == 0, chosen.stderr
    manifest = (tmp_path / "sel").rglob("*.jsonl")
    assert all("noisy" in line for path in manifest for line in path.read_text().splitlines())
    likeliest = rows(sounds, "quality")[0]["tags"][0]
    assert [each.column for each in conditions_of("tag:Male speech, man speaking<0.3, snr_db>=1")][1] == "snr_db"
    (condition,) = conditions_of(f"tag:{likeliest['label'].upper()}>={likeliest['probability'] - 0.01}")
    assert condition.holds({"tags": [likeliest]}) and not condition.holds({"tags": []})
    assert not conditions_of("tag:Music<0.3")[0].holds({"tags": None}), "what was not measured meets nothing"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("snr>=3", "no such column"),
        ("snr_db", "expected a comparison"),
        ("snr_db>=loud", "is a number"),
        ("speaker>S1", "= and !="),
    ],
)
def test_a_condition_that_means_nothing_is_told(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        conditions_of(text)


def test_conditions_on_what_was_not_measured_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(clips_of("en")[0]))
    run(tmp_path / "a.wav", tmp_path / "out")
    found = in_process(tmp_path, "export", "out", "--format", "csv", "--where", "snr_db>=3")
    assert found.returncode != 0 and "--quality" in found.stderr
    with pytest.raises(UsageError, match="add --quality"):
        run(tmp_path / "a.wav", tmp_path / "no", tagger="x")
    with pytest.raises((UsageError, InputError), match="tags no sound"):
        run(tmp_path / "a.wav", tmp_path / "no", quality=True, dnsmos=False, tagger="campplus")
