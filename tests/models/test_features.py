"""Recognisers on frozen features: a CTC head behind any encoder, and the spectrogram as what others are compared with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from audiomill.audio.cutting.segment import Segment
from audiomill.config.fields import build
from audiomill.config.text import TranscriptConfig
from audiomill.config.train import TrainConfig
from audiomill.errors import ModelError
from audiomill.models.base import VectorRequest
from audiomill.models.feature_ctc.feature_learner import new_feature_learner
from audiomill.models.frames.mel import log_mel_MF
from tests.conftest import made_once
from tests.support.command_line import in_process
from tests.support.jobs_by_hand import loaded, rows, run
from tests.support.synth import noise
from tests.support.tone_language import sentence, spoken, write_corpus
from tests.support.training import said, trained


@pytest.fixture(scope="session")
def tone_features(tone_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on the features of a model that reads tones, trained on 60 clips."""

    def make(root: Path) -> None:
        options: dict[str, Any] = {
            "from_scratch": False,
            "learning_rate": None,
            "features": True,
            "batch_seconds": 20.0,
        }
        encoder = str(tone_model / "model" / "checkpoint")
        trained(
            tone_model / "labelled",
            root / "training",
            model=encoder,
            dev=str(tone_model / "dev"),
            max_updates=150,
            **options,
        )

    return made_once(tmp_path_factory, "tone-features", make) / "training" / "checkpoint"


def test_a_head_learns_to_read_and_does_what_ctc_models_do(
    tone_features: Path, tone_model: Path, tmp_path: Path
) -> None:
    report = json.loads((tone_features.parent / "result.json").read_text())
    assert report["objective"] == "features" and report["best_dev_wer"] < 0.2
    options: dict[str, Any] = {"model": tone_features, "segment": "none"}
    run(tone_model / "dev", tmp_path / "out", save_posteriors=4, **options)
    run(tone_model / "dev", tmp_path / "other", batch_seconds=2.0, part_seconds=3.0, beam_size=1, **options)
    found, other = ({row["id"]: row["text"] for row in rows(tmp_path / each, "segments")} for each in ("out", "other"))
    assert found == other and sum(map(bool, found.values())) >= 15
    words = [word for row in rows(tmp_path / "out", "segments") for word in row["words"]]
    assert all(word["stop_s"] > word["start_s"] for word in words)
    assert in_process(tmp_path, "redecode", "out", "--beam-size", "4", "--output", "again").returncode == 0


def test_rows_go_through_a_head_alone_whatever_is_beside_them(tone_features: Path) -> None:
    model = loaded(tone_features, transcripts=TranscriptConfig())
    batch = [Segment(spoken(sentence(n), n), 0, 0, (str(n), None), 0, None) for n in range(4)]
    batch.append(Segment(noise(20), 0, 0, ("short", None), 0, None))
    for segment, answer in zip(batch, model.forward(batch), strict=True):
        (alone,) = model.forward([segment])
        assert np.array_equal(alone.text.labels_F, answer.text.labels_F)
        assert np.abs(alone.text.logprobs_F - answer.text.logprobs_F).max() < 1e-4


@pytest.mark.parametrize("width", [0, 8])
def test_the_loss_is_torch_s_own_of_each_clip_alone(wav2vec2_folder: Path, width: int) -> None:
    torch.manual_seed(0)
    options = {"model": str(wav2vec2_folder), "device": "cpu", "mask_time_prob": 0.0, "head_width": width}
    learner = new_feature_learner(wav2vec2_folder, build(TrainConfig, options), said("ab c"), torch.device("cpu"))
    clips, texts = [noise(n, seed=n) for n in (8_000, 20_000, 5_000)], ["a b", "cab", "b"]
    labels = learner.labels(said(*texts), np.array([len(clip) for clip in clips]))
    vectors = loaded(wav2vec2_folder, vectors=(VectorRequest(layer=2, dtype="fp32"),))
    expected = 0.0
    for clip, label in zip(clips, labels, strict=True):
        frames = vectors.forward([Segment(clip, 0, 0, ("", None), 0, None)])[0].readout.vectors[0].values_ND
        logits = learner.model(torch.from_numpy(frames)[None], torch.tensor([len(frames)]))
        args = (torch.tensor([label]), torch.tensor([len(frames)]), torch.tensor([len(label)]))
        expected += float(
            nn.functional.ctc_loss(logits.log_softmax(-1).transpose(0, 1), *args, reduction="sum").detach()
        )
    loss = learner.loss(clips, labels, np.ones(3, np.float32), 0)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-4)
    assert loss.size == sum(map(len, labels))


def test_a_mixture_is_what_embed_gives_of_it(wav2vec2_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text(json.dumps({"weights": [0.2, 0.0, 0.8]}))
    options = {"model": str(wav2vec2_folder), "device": "cpu", "layer_weights": str(tmp_path / "weights.json")}
    learner = new_feature_learner(wav2vec2_folder, build(TrainConfig, options), ["ab"], torch.device("cpu"))
    (frames,) = learner._encoder.frames([noise(16_000)])
    want = VectorRequest(layer=-1, weights=(0.2, 0.0, 0.8), dtype="fp32")
    heard = loaded(wav2vec2_folder, vectors=(want,)).forward([Segment(noise(16_000), 0, 0, ("", None), 0, None)])
    assert np.array_equal(frames.numpy(), heard[0].readout.vectors[0].values_ND)
    learner.save(tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "config.json").read_text())["mixture"] == [0.2, 0.0, 0.8]


def test_the_spectrogram_is_a_model_like_others(tmp_path: Path) -> None:
    write_corpus(tmp_path / "in", range(2), with_text=False)
    run(tmp_path / "in", tmp_path / "out", kind="embed", model="log-mel://", layers="0", dtype="fp32")
    for row in rows(tmp_path / "out", "embeddings"):
        values = np.asarray(row["values"], np.float32).reshape(row["num_frames"], -1)
        assert values.shape[1] == 80 and row["frame_rate_hz"] == 100.0
    pcm = spoken(sentence(1), 1)
    assert np.array_equal(values[: len(pcm) // 160], log_mel_MF(pcm).T[: len(values)])
    options: dict[str, Any] = {
        "from_scratch": False,
        "learning_rate": None,
        "features": True,
        "max_updates": 3,
        "head_width": 8,
    }
    write_corpus(tmp_path / "labelled", range(6))
    trained(tmp_path / "labelled", tmp_path / "on-mel", model="log-mel://", **options)
    run(tmp_path / "in", tmp_path / "texts", model=tmp_path / "on-mel" / "checkpoint", segment="none")
    assert len(rows(tmp_path / "texts", "recordings")) == 2
    refused = in_process(tmp_path, "transcribe", "in", "--model", "log-mel://", "--output", "x")
    assert refused.returncode == 2 and "without CTC head" in refused.stderr


def refusal(tmp_path: Path, *options: str) -> str:
    clips = write_corpus(tmp_path / "clips", range(3))
    done = in_process(
        tmp_path, "finetune", str(clips), "--output", str(tmp_path / "out"), "--quiet", "--features", *options
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_what_does_not_go_together_is_told_in_a_line(
    wav2vec2_folder: Path, tone_features: Path, tmp_path: Path
) -> None:
    encoder = str(wav2vec2_folder)
    assert "has hidden states 0 to 2" in refusal(tmp_path, "--model", encoder, "--encoder-layer", "7")
    assert "take one" in refusal(tmp_path, "--model", encoder, "--projector")
    assert "two things to learn by" in refusal(tmp_path, "--model", encoder, "--objective", "ctc")
    assert "--frame-stacking: read by --projector alone" in refusal(
        tmp_path, "--model", encoder, "--frame-stacking", "3"
    )
    assert "is new, its encoder is not" in refusal(tmp_path, "--model", encoder, "--from-scratch")
    (tmp_path / "three.json").write_text("[1, 1, 1, 1]")
    assert "4 weights" in refusal(tmp_path, "--model", encoder, "--layer-weights", str(tmp_path / "three.json"))
    assert "has its own already" in refusal(tmp_path, "--model", str(tone_features), "--head-width", "4")
    whole = shutil.copytree(tone_features, tmp_path / "whole")
    shutil.rmtree(whole / "encoder")
    shutil.copytree(wav2vec2_folder, whole / "encoder")
    with pytest.raises(ModelError, match="not the encoder that was trained with"):
        loaded(whole, transcripts=TranscriptConfig())


def test_a_head_may_write_pieces_of_words_and_plain_transformers_knows_them(
    wav2vec2_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    corpus = write_corpus(tmp_path / "in", range(6))
    trained(
        corpus, tmp_path / "out", model=str(wav2vec2_folder), from_scratch=False, features=True, tokenizer="pieces", vocab_size=12,
        max_updates=2,
    )  # fmt: skip
    checkpoint = tmp_path / "out" / "checkpoint"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert (
        len(tokenizer) <= 12 and tokenizer.decode(tokenizer("ab ca", add_special_tokens=False)["input_ids"]) == "ab ca"
    )
    run(corpus, tmp_path / "texts", model=checkpoint, segment="none")
    assert len(rows(tmp_path / "texts", "segments")) == 6


def test_new_models_are_listed_and_start_from_their_names(audiomill: Any, tmp_path: Path) -> None:
    done = audiomill("models", "--new")
    names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("new://")]
    assert {"new://wav2vec", "new://vq-wav2vec-gumbel", "new://wav2vec2-base", "new://seq2seq"} <= set(names)
    wrong = audiomill("finetune", str(tmp_path), "--model", "new://wav2vec3", "--output", str(tmp_path / "o"))
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "new://wav2vec2-base" in wrong.stderr
