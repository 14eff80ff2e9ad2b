"""Training: what is planned, what is learnt, what is dropped, and that a kill changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from audiomill.audio.perturb import at_speed, in_noise
from audiomill.config.train import TrainConfig
from audiomill.errors import ModelError, RunError, UsageError
from audiomill.models.ctc.labels import form_of, label_vocabulary, num_frames_needed, plain_letters, save_tokenizer
from audiomill.models.frames.masks import span_mask
from audiomill.train.fit.batches import epoch_batches, updates
from audiomill.train.fit.ema import rate_share
from audiomill.train.fit.metrics_history import nothing_learnt
from tests.support.jobs_by_hand import loaded, rows, run
from tests.support.scale import daily
from tests.support.synth import RATE, save_ctc_checkpoint, tar_bytes
from tests.support.tone_language import save_config, sentence, spoken, write_corpus
from tests.support.training import said, trained

NO_DROPOUT = dict.fromkeys(
    ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout"), 0.0
)


def weights(output: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(output / "checkpoint" / "model.safetensors")
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 labelled clips, 20 for dev, and the configuration of a small model."""
    root = tmp_path_factory.mktemp("tones")
    write_corpus(root / "labelled", range(60))
    write_corpus(root / "dev", range(300, 320))
    save_config(root / "config")
    return root


lengths_drawn = st.lists(st.integers(100, 100_000), min_size=1, max_size=80)


@given(lengths_drawn, st.integers(50_000, 300_000), st.integers(0, 5), st.integers(0, 3))
def test_every_clip_is_in_one_batch_of_an_epoch_and_batches_fit(
    lengths: list[int], budget: int, seed: int, epoch: int
) -> None:
    samples = np.array(lengths)
    batches = epoch_batches(samples, budget, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(rows) == 1 or samples[rows].max() * len(rows) <= budget for rows in batches)


@given(lengths_drawn, st.integers(1, 4), st.integers(0, 20))
def test_updates_from_the_middle_are_those_of_the_whole(lengths: list[int], together: int, first: int) -> None:
    samples = np.array(lengths)
    whole = list(updates(samples, 200_000, 1, together, 0, 30))
    part = list(updates(samples, 200_000, 1, together, first, 30))
    assert [u.number for u in whole] == list(range(30))
    assert [[b.tolist() for b in u.batches] for u in part] == [[b.tolist() for b in u.batches] for u in whole[first:]]


@given(st.sampled_from(["tri-stage", "cosine", "constant"]), st.integers(1, 500), st.floats(0, 0.5), st.floats(0, 0.5))
def test_learning_rates_rise_then_never_rise_again_and_stay_above_nothing(
    kind: str, count: int, warmup: float, hold: float
) -> None:
    top = int(warmup * count)
    shares = [rate_share(kind, number, count, top, hold) for number in range(count)]
    assert all(0 < share <= 1 for share in shares)
    assert shares[:top] == sorted(shares[:top]) and shares[top:] == sorted(shares[top:], reverse=True)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.integers(0, 99))
def test_masks_stay_inside_their_rows_and_leave_something(frames: list[int], seed: int) -> None:
    mask = span_mask(frames, max(frames), 0.05, 10, np.random.default_rng(seed), min_spans=1)
    for row, count in enumerate(frames):
        assert not mask[row, count:].any() and mask[row].any()
        assert count < 8 or not mask[row, :count].all()


def test_speed_and_noise_change_what_they_say() -> None:
    clip = spoken("abc ab", 1, noise=0.0)
    assert len(at_speed(clip, 1.25)) == pytest.approx(len(clip) / 1.25, abs=2)
    noisy = in_noise(clip, 10.0, np.random.default_rng(0)).astype(float) - clip
    snr = 10 * np.log10(np.square(clip.astype(float)).mean() / np.square(noisy).mean())
    assert snr == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize(
    ("texts", "by_token", "expected"),
    [
        (["Dog's day!", "dog"], False, ["'", "a", "d", "g", "o", "s", "y"]),
        (["tʃ ɛ k", "k ɛ"], True, ["k", "tʃ", "ɛ"]),
        (["漢字、かな"], False, ["か", "な", "字", "漢"]),
    ],
)
def test_vocabularies_of_any_script_are_saved_and_read_back(
    tmp_path: Path, texts: list[str], by_token: bool, expected: list[str]
) -> None:
    vocabulary = label_vocabulary(said(*texts), by_token, False)
    assert list(vocabulary.tokens[3:]) == expected
    save_tokenizer(vocabulary, tmp_path)
    from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary

    assert ctc_vocabulary(ctc_tokenizer(tmp_path, None, False), len(vocabulary.tokens), 0) == vocabulary
    form = form_of(vocabulary, False)
    assert isinstance(form.tokens(texts[0], None), list)
    assert form.tokens("  !", None) == ("unknown_characters" if by_token else "empty_text")
    assert form.tokens("zebra", None) == "unknown_characters"


def test_texts_become_what_ctc_models_write() -> None:
    assert plain_letters("It’s  ten—o'clock, Zoë!") == "it's ten o'clock zoë"
    assert num_frames_needed([1, 1, 2]) == 4


def test_a_model_learns_to_read_and_its_checkpoint_transcribes(tone_model: Path, tmp_path: Path) -> None:
    output = tone_model / "model"
    report = json.loads((output / "result.json").read_text())
    assert report["best_dev_wer"] < 0.1 and report["num_clips"] == 60
    run(tone_model / "dev", tmp_path / "texts", model=output / "checkpoint", segment="none")
    found = rows(tmp_path / "texts", "recordings")
    assert sum(row["text"] == row["reference"] for row in found) >= 17
    for row in rows(tmp_path / "texts", "segments"):
        assert all(row["start_s"] <= word["start_s"] < word["stop_s"] <= row["stop_s"] for word in row["words"])
    from transformers import AutoModelForCTC, AutoTokenizer

    model = AutoModelForCTC.from_pretrained(output / "checkpoint")
    assert sum(each.numel() for each in model.parameters()) > 50_000
    assert AutoTokenizer.from_pretrained(output / "checkpoint").decode([0, 3, 3, 0, 4]) == "ab"
    assert list((output / "tensorboard").glob("events*"))
    page = (output / "report.html").read_text()
    assert page.count("<svg") >= 3 and "dev WER" in page


def test_the_same_command_again_does_nothing_and_another_one_is_refused(tones: Path, tmp_path: Path) -> None:
    options = {"model": str(tones / "config"), "max_updates": 1}
    assert trained(tones / "labelled", tmp_path / "out", **options)["is_new"]
    assert not trained(tones / "labelled", tmp_path / "out", **options)["is_new"]
    with pytest.raises(UsageError, match="--seed was 0, now 1"):
        trained(tones / "labelled", tmp_path / "out", seed=1, **options)


COMMAND = """
import sys
from pathlib import Path
from tests.train.test_train import long_training
long_training(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def long_training(tones: Path, output: Path) -> None:
    """With all that leaves a state behind."""
    trained(
        tones / "labelled", output, model=str(tones / "config"), dev=str(tones / "dev"), max_updates=12, evaluate_every=3,
        save_minutes=0.002, ema_decay=0.9, speed_augment=0.1, noise_snr=10.0, mask_time_prob=0.01, patience=50,
    )  # fmt: skip


KILLS = daily(1, 2)


def test_a_killed_training_ends_with_the_same_weights(tones: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}  # with as many threads as here

    def start(output: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", COMMAND, str(tones), str(output)], env=environment)

    long_training(tones, tmp_path / "whole")
    num_kills = 0
    while num_kills < KILLS:
        before = {each.name for each in (tmp_path / "killed" / "state").glob("update-*.pt")}
        process = start(tmp_path / "killed")
        while not {each.name for each in (tmp_path / "killed" / "state").glob("update-*.pt")} - before:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        num_kills += 1
    long_training(tones, tmp_path / "killed")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    curves = [
        [
            (row["update"], row["dev_wer"])
            for row in map(json.loads, (tmp_path / name / "metrics.jsonl").open())
            if "dev_wer" in row
        ]
        for name in ("whole", "killed")
    ]
    assert curves[0] == curves[1] and len(curves[0]) == 4


def test_another_seed_gives_other_weights_and_the_same_the_same(tones: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trained(tones / "labelled", tmp_path / name, model=str(tones / "config"), max_updates=4, seed=seed)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.nightly
def test_two_workers_take_the_steps_of_one_with_batches_twice_as_many(tones: Path, tmp_path: Path) -> None:
    options = {"model": str(tones / "config"), "max_updates": daily(2, 6), "dropout": 0.0}
    trained(tones / "labelled", tmp_path / "one", gradient_accumulation_steps=2, **options)
    trained(tones / "labelled", tmp_path / "two", workers=2, **options)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 2e-4


def test_the_loss_of_a_padded_batch_is_the_sum_of_hugging_face_s_own(tmp_path: Path) -> None:
    """Each clip alone through `...ForCTC` with `labels`, at batch size 1."""
    from transformers import AutoModelForCTC

    from audiomill.models.wav2vec2.learner import load_ctc

    folder = save_ctc_checkpoint(tmp_path, "wav2vec2-group", **NO_DROPOUT)
    learner = load_ctc(folder, TrainConfig(mask_time_prob=0.0), said("ab"), torch.device("cpu"))
    clips = [spoken(sentence(seed), seed) for seed in range(3)]
    labels = learner.labels(said("ab ba", "cab", "hello"), np.array([len(clip) for clip in clips]))
    learner.model.train()
    ours = learner.loss(clips, labels, np.ones(3, np.float32), 0)  # type: ignore[arg-type]
    theirs = AutoModelForCTC.from_pretrained(
        folder, ctc_loss_reduction="sum", apply_spec_augment=False, layerdrop=0.0, **NO_DROPOUT
    )
    expected = 0.0
    for clip, label in zip(clips, labels, strict=True):
        wave = clip.astype(np.float64) / 32768
        wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        values = torch.tensor(wave, dtype=torch.float32)[None]
        expected += float(theirs(values, labels=torch.tensor([label.tokens])).loss)
    assert float(ours.total) == pytest.approx(expected, rel=1e-4)
    assert ours.size == sum(len(label.tokens) for label in labels)
    ours.total.backward()
    assert all(each.grad is None or torch.isfinite(each.grad).all() for each in learner.model.parameters())


def test_the_head_learns_first_and_the_convolutions_stay(tones: Path, tmp_path: Path) -> None:
    folder = save_ctc_checkpoint(tmp_path / "start", "wav2vec2-layer")
    before = load_file(folder / "model.safetensors")
    options = {"from_scratch": False, "model": str(folder), "vocabulary": "labels", "max_updates": 2}
    trained(tones / "labelled", tmp_path / "frozen", freeze_encoder_updates=2, **options)
    trained(tones / "labelled", tmp_path / "thawed", freeze_encoder_updates=1, gradient_checkpointing=True, **options)
    frozen, thawed = weights(tmp_path / "frozen"), weights(tmp_path / "thawed")
    conv = next(name for name in before if "feature_extractor" in name)
    layer = next(name for name in before if "layers.0.feed_forward.intermediate_dense.weight" in name)
    assert torch.equal(frozen[layer], before[layer]) and not torch.equal(thawed[layer], before[layer])
    assert torch.equal(frozen[conv], before[conv]) and torch.equal(thawed[conv], before[conv])
    assert frozen["lm_head.weight"].shape[0] == 6


def test_what_cannot_be_learnt_from_is_counted_with_its_reason(tones: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    write_corpus(folder, range(3))
    for name, text in (("empty", "..."), ("foreign", "abc жук"), ("dense", "abcabc " * 40)):
        soundfile.write(folder / f"{name}.wav", spoken("ab", 5), RATE)
        (folder / f"{name}.txt").write_text(text)
    soundfile.write(folder / "silent.wav", spoken("ab", 5), RATE)
    (folder / "broken.wav").write_bytes(b"no audio")
    (folder / "broken.txt").write_text("ab")
    soundfile.write(folder / "long.wav", np.zeros(12 * RATE, np.int16), RATE)
    (folder / "long.txt").write_text("a")
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio_filepath": "/none/x.wav", "text": "ab"}) + "\n")
    start = trained(tones / "labelled", tmp_path / "start", model=str(tones / "config"), max_updates=1)
    report = trained(
        [folder, tmp_path / "m.jsonl"],
        tmp_path / "out",
        from_scratch=False,
        model=str(tmp_path / "start" / "checkpoint"),
        max_updates=1,
        max_clip_seconds=10.0,
    )
    assert start["dropped"] == {} and report["num_clips"] == 3
    assert report["dropped"] == {
        "no_text": 1, "not_audio": 1, "too_long": 1, "not_found": 1, "empty_text": 1, "unknown_characters": 1,
        "audio_shorter_than_text": 1,
    }  # fmt: skip
    import pyarrow.parquet as pq

    lost = pq.read_table(tmp_path / "out" / "dropped.parquet").to_pylist()
    assert all(row["detail"] and row["source"] for row in lost)


def test_nothing_left_no_such_model_and_a_loss_that_is_no_number_are_told(tones: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", spoken("ab", 5), RATE)
    (tmp_path / "a.txt").write_text("?!")
    with pytest.raises(UsageError, match="no label has a letter"):
        trained(tmp_path / "a.wav", tmp_path / "o1", model=str(tones / "config"))
    (tmp_path / "shard.tar").write_bytes(tar_bytes({"a.wav": (tmp_path / "a.wav").read_bytes()}))
    with pytest.raises(UsageError, match=r"nothing to train on: every clip was dropped \(1 no_text\)|no label has"):
        trained(tmp_path / "shard.tar", tmp_path / "o2", model=str(tones / "config"))
    (tmp_path / "a.txt").write_text("ab")
    trained(
        tmp_path / "a.wav", tmp_path / "o1", model=str(tones / "config"), max_updates=1, seed=3
    )  # the folder is free again
    with pytest.raises(ModelError, match="needs a folder with config"):
        trained(tones / "labelled", tmp_path / "o3", model=str(tmp_path))
    with pytest.raises(UsageError, match="is a wav2vec2 checkpoint, which learns by ctc, pretrain"):
        trained(tones / "labelled", tmp_path / "o4", model=str(tones / "config"), objective="whisper")
    with pytest.raises(RunError, match=r"update \d+: the loss is (nan|inf).*Lower --learning-rate"):
        trained(tones / "labelled", tmp_path / "o5", model=str(tones / "config"), learning_rate=1e30, warmup_ratio=0.0, max_grad_norm=1e30, max_updates=20)  # fmt: skip


def test_pretraining_learns_what_is_hidden_and_its_codes_stay_alive(tones: Path, tmp_path: Path) -> None:
    report = trained(
        tones / "labelled",
        tmp_path / "out",
        model=str(tones / "config"),
        objective="pretrain",
        max_updates=daily(50, 220),
        batch_seconds=16.0,
        learning_rate=2e-3,
    )
    told = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").open()]
    assert report["codebook_perplexity"] > 4 and not report["collapsed"]
    assert told[-1]["loss"] < told[0]["loss"] - daily(0.1, 0.2)
    from transformers import Wav2Vec2ForPreTraining

    Wav2Vec2ForPreTraining.from_pretrained(tmp_path / "out" / "checkpoint")
    after = trained(
        tones / "labelled",
        tmp_path / "tuned",
        from_scratch=False,
        model=str(tmp_path / "out" / "checkpoint"),
        max_updates=2,
    )
    assert after["objective"] == "ctc"
    run(tones / "dev", tmp_path / "codes", "encode", model=tmp_path / "out" / "checkpoint")
    assert rows(tmp_path / "codes", "codes")


def test_whisper_s_loss_is_hugging_face_s_own_and_falls(whisper: Path, voices: list[Any], tmp_path: Path) -> None:
    from audiomill.models.whisper.learner import encoded, load_whisper_learner

    learner = load_whisper_learner(whisper, TrainConfig(mask_time_prob=0.0), [], torch.device("cpu"))
    model, clips = learner.model, [pcm for pcm, _ in voices[:2]]
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = model.model.encoder(mel).last_hidden_state
        assert torch.allclose(encoded(model.model.encoder, mel), theirs, atol=1e-4)
    labels = learner.labels(said(*(text for _, text in voices[:2])), np.array([len(clip) for clip in clips]))
    inputs, targets = learner._pairs(labels, np.array([False, True]))  # type: ignore[arg-type]
    hidden = torch.randn(2, 500, model.config.d_model)
    logits = model.proj_out(model.model.decoder(input_ids=inputs, encoder_hidden_states=hidden).last_hidden_state)
    whole = model(encoder_outputs=(hidden,), decoder_input_ids=inputs, labels=targets)
    ours = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100)
    assert float(ours) == pytest.approx(float(whole.loss), rel=1e-4)
    corpus = tmp_path / "voices"
    corpus.mkdir()
    for number, (pcm, text) in enumerate(voices[:2]):
        soundfile.write(corpus / f"{number}.wav", pcm, RATE)
        (corpus / f"{number}.txt").write_text(text.upper())
    report = trained(
        corpus, tmp_path / "out", from_scratch=False, model=str(whisper), dev=str(corpus), freeze_encoder=True, max_updates=daily(2, 4),
        learning_rate=2e-4, evaluate_every=1, batch_seconds=60.0, warmup_ratio=0.0,
    )  # fmt: skip
    assert report["objective"] == "whisper" and report["best_dev_wer"] < 0.2
    told = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").open()]
    losses = [row["loss"] for row in told if "loss" in row]
    assert losses[-1] < losses[0]
    model = loaded(tmp_path / "out" / "checkpoint")
    from audiomill.audio.cutting.segment import Segment

    heard = [Segment(pcm, 0, 0, ("r", None), 0, None) for pcm in clips]
    texts = model.transcripts(heard, [answer.text for answer in model.forward(heard)])
    assert sum(text.text.isupper() for text in texts) >= 1, [text.text for text in texts]
    from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

    WhisperForConditionalGeneration.from_pretrained(tmp_path / "out" / "checkpoint")
    WhisperProcessor.from_pretrained(tmp_path / "out" / "checkpoint")
    read = pipeline("automatic-speech-recognition", str(tmp_path / "out" / "checkpoint"))
    sound = {"raw": clips[0].astype(np.float32) / 32768, "sampling_rate": RATE}
    found = read(sound, return_timestamps=True)
    assert "world" in found["text"].lower() and found["chunks"][0]["timestamp"][1] > 0.5


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"loss": 3.0}, {"loss": 1.0, "dev_wer": 0.4}], None),
        ([{"loss": 3.0}, {"loss": 1.0, "dev_wer": 1.0}], "no update reached a dev WER below 100%"),
        ([{"loss": 3.0}, {"loss": 3.0}], "the loss went from 3 to 3"),
        ([{"loss": 3.0}, {"loss": float("nan")}], "the loss went from 3 to nan"),
        ([{"loss": 3.0}], None),
        ([], None),
    ],
)
def test_a_training_that_learnt_nothing_says_so(rows: list[dict[str, float]], said: str | None) -> None:
    found = nothing_learnt(rows)
    assert (found is None) if said is None else said in str(found)
