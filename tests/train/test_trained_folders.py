"""What training writes, others read: plain transformers with no tensor missing or unexpected, and our own jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from audiomill.config.train import TrainConfig
from audiomill.models.wav2vec2.pretrainer import load_pretrainer
from tests.support.jobs_by_hand import loaded, rows, run
from tests.support.scale import daily
from tests.support.synth import save_ctc_checkpoint
from tests.support.tone_language import spoken, write_corpus
from tests.support.training import trained

FAMILIES = (
    "wav2vec2-group",
    "wav2vec2-layer",
    "wav2vec2-adapter",
    "hubert-group",
    "wavlm-group",
    "data2vec-audio",
    "wav2vec2-bert",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "in"
    write_corpus(folder, range(4))
    return folder


def logits_of_transformers(folder: Path, kind: str = "AutoModelForCTC") -> tuple[torch.Tensor, dict[str, Any]]:
    """Logits of one clip by plain transformers, and what `from_pretrained` says of the tensors."""
    import transformers

    model, told = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    waveform = spoken("abc", 1).astype(np.float32) / 32768
    inputs = extractor(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        return model.eval()(**inputs).logits[0], told


def logprobs_of_ours(folder: Path) -> torch.Tensor:
    from audiomill.audio.cutting.segment import Segment

    model = loaded(folder)
    pcm = spoken("abc", 1)
    values, _ = model.posteriors(Segment(pcm, 0, 0, ("a", None), 0, None))
    return torch.from_numpy(values).log()


DAILY = ("wav2vec2-layer", "hubert-group", "wav2vec2-bert")


@pytest.mark.parametrize(
    "family", [each if each in DAILY else pytest.param(each, marks=pytest.mark.nightly) for each in FAMILIES]
)
def test_a_trained_ctc_folder_is_read_by_transformers_and_by_us(clips: Path, tmp_path: Path, family: str) -> None:
    start = save_ctc_checkpoint(tmp_path / "start", family)
    trained(clips, tmp_path / "out", model=str(start), from_scratch=False, max_updates=1, vocabulary="labels")
    folder = tmp_path / "out" / "checkpoint"
    logits, told = logits_of_transformers(folder)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    ours = logprobs_of_ours(folder)
    assert float((logits.log_softmax(-1) - ours).abs().max()) < 1e-3
    run(clips, tmp_path / "texts", model=folder, segment="none")
    read = pipeline("automatic-speech-recognition", str(folder))
    for row in rows(tmp_path / "texts", "recordings"):
        waveform, rate = soundfile.read(row["source"], dtype="float32")
        assert read({"raw": waveform, "sampling_rate": rate})["text"].strip() == row["text"]


@pytest.fixture(scope="module")
def trained_whisper(tmp_path_factory: pytest.TempPathFactory, whisper: Path, voices: Any) -> Path:
    """Whisper that has learnt to write capitals: its checkpoint, and two clips."""
    root = tmp_path_factory.mktemp("whisper")
    (root / "in").mkdir()
    for number, (pcm, text) in enumerate(voices[: daily(1, 2)]):
        soundfile.write(root / "in" / f"{number}.wav", pcm, 16_000)
        (root / "in" / f"{number}.txt").write_text(text.upper())
    trained(
        root / "in", root / "out", model=str(whisper), from_scratch=False, freeze_encoder=True, max_updates=8,
        learning_rate=1e-4, warmup_ratio=0.0,
    )  # fmt: skip
    return root


def texts_of(inputs: Path, output: Path, model: Path) -> list[str]:
    run(inputs, output, model=model, precision="fp32")
    return [row["text"] for row in sorted(rows(output, "recordings"), key=lambda row: row["source"])]


@pytest.mark.nightly  # daily: what test_train's Whisper has learnt goes through the pipeline
def test_a_trained_whisper_writes_the_same_in_transformers_pipeline(trained_whisper: Path, tmp_path: Path) -> None:
    """Which shows it full windows, where we show it as much as there is to hear."""
    folder, clips = trained_whisper / "out" / "checkpoint", trained_whisper / "in"
    ours = texts_of(clips, tmp_path / "out", folder)
    assert all(text.isupper() for text in ours)
    read = pipeline("automatic-speech-recognition", str(folder))
    for path, text in zip(sorted(clips.glob("*.wav")), ours, strict=True):
        waveform, rate = soundfile.read(path, dtype="float32")
        for asked in ({}, {"return_timestamps": True}, {"return_timestamps": "word"}):
            found = read({"raw": waveform, "sampling_rate": rate}, **asked)
            assert found["text"].strip() == text, asked
        assert len(found["chunks"]) == len(text.split())


@pytest.mark.nightly  # daily: the pipeline reads it, and CTranslate2's own folder is read everywhere
def test_a_trained_whisper_goes_through_ctranslate2_s_converter(trained_whisper: Path, tmp_path: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    folder = trained_whisper / "out" / "checkpoint"
    copied = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(folder), copy_files=copied).convert(str(tmp_path / "ct2"), quantization="float32")
    one, other = (
        texts_of(trained_whisper / "in", tmp_path / str(n), model) for n, model in enumerate((folder, tmp_path / "ct2"))
    )
    assert one == other


def test_a_pretrained_folder_is_read_by_transformers_and_embedded_by_us(clips: Path, tmp_path: Path) -> None:
    import transformers

    start = save_ctc_checkpoint(tmp_path / "start", "wav2vec2-group")
    trained(clips, tmp_path / "out", model=str(start), objective="pretrain", max_updates=1)
    folder = tmp_path / "out" / "checkpoint"
    _, told = transformers.Wav2Vec2ForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    run(clips, tmp_path / "vectors", "embed", model=folder, layers="1")
    assert len(rows(tmp_path / "vectors", "embeddings")) == 4


def test_a_folder_that_an_earlier_version_wrote_is_read_and_said_once(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_ctc_checkpoint(tmp_path / "old", "wav2vec2-group")
    expected, _ = logits_of_transformers(folder)
    weights = load_file(folder / "model.safetensors")
    part = "conv_layers.0.layer_norm."
    save_file(
        {name.replace(part, f"{part}_norm."): value for name, value in weights.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    for _ in range(2):
        assert float((expected.log_softmax(-1) - logprobs_of_ours(folder)).abs().max()) < 1e-3
    assert sum("renamed as it is loaded" in record.message for record in caplog.records) == 1
    trained(clips, tmp_path / "on", model=str(folder), from_scratch=False, max_updates=1)
    _, told = logits_of_transformers(tmp_path / "on" / "checkpoint")
    assert not told["missing_keys"] and not told["unexpected_keys"]


def test_pretraining_goes_on_from_a_folder_that_an_earlier_version_wrote(tmp_path: Path) -> None:
    folder = save_ctc_checkpoint(tmp_path / "old", "wav2vec2-group")
    weights = load_file(folder / "model.safetensors")
    (name,) = (each for each in weights if each.endswith("conv_layers.0.layer_norm.weight"))
    weights[name.replace("layer_norm.", "layer_norm._norm.")] = torch.full_like(weights.pop(name), 2.0)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model = load_pretrainer(folder, TrainConfig(), [], torch.device("cpu")).model
    assert (model.wav2vec2.feature_extractor.conv_layers[0].layer_norm.weight == 2.0).all()
