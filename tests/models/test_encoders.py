"""Encoders with a CTC head against transformers' own forward pass and `generate` at batch size 1, and as runs use them."""

from __future__ import annotations

import json
import shutil
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.base import VectorRequest
from audiomill.models.precision import cpu_features
from tests.support.encoder_checkpoints import ENCODERS
from tests.support.jobs_by_hand import check_accounts, loaded, rows, run
from tests.support.scale import daily
from tests.support.synth import RATE, encode, noise

FIXED = [2_400, 16_001, 40_123, daily(80_017, 400_077)]
WANTS = tuple(VectorRequest(layer=layer) for layer in range(4))
MAX_RELATIVE_L2 = 1e-4
NO_SPECIAL = TranscriptConfig(drop_special_tokens=True)


@pytest.fixture(scope="session", params=sorted(ENCODERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of each family."""
    return ENCODERS[request.param](tmp_path_factory.mktemp(request.param) / request.param)


@pytest.fixture(scope="session")
def parakeet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ENCODERS["parakeet"](tmp_path_factory.mktemp("one") / "parakeet")


def segments(lengths: list[int]) -> list[Segment]:
    return [Segment(noise(n, seed=n), 0, 0, (str(n), None), 0, None) for n in lengths]


def slopes_of(log_mel_MF: NDArray[np.float64]) -> NDArray[np.float64]:
    """torchaudio's `compute_deltas` with a window of three."""
    wide = np.pad(log_mel_MF, ((0, 0), (1, 1)), mode="edge")
    return (wide[:, 2:] - wide[:, :-2]) / 2


def htk_filters(num_mels: int, num_bins: int) -> NDArray[np.float64]:
    """torchaudio's triangles, one by one."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), num_mels + 2) / 2595) - 1)
    at = np.linspace(0, 8000, num_bins)
    found = [
        np.minimum((at - a) / (b - a), (c - at) / (c - b)) for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)
    ]
    return np.maximum(0, np.array(found))


def granite_features(pcm: NDArray[np.int16]) -> dict[str, torch.Tensor]:
    """What transformers' extractor does, which needs torchaudio: written down from its source, one clip, torch's own STFT."""
    wave = torch.from_numpy(pcm.astype(np.float64) / 32768)
    num_frames = 2 * -(-(len(pcm) // 160) // 2)
    wave = torch.nn.functional.pad(wave, (0, max(0, (num_frames - 1) * 160 + 1 - len(wave))))
    window = torch.hann_window(400, dtype=torch.float64)
    spectrum = torch.stft(wave, 512, 160, 400, window, center=True, pad_mode="reflect", return_complex=True)
    mel = htk_filters(80, 257) @ spectrum.abs().square().numpy()[:, :num_frames]
    log_mel = np.log10(np.maximum(mel, 1e-10))
    log_mel = np.maximum(log_mel, log_mel.max() - 8.0) / 4 + 1
    both = np.concatenate([log_mel, slopes_of(log_mel)]).T.reshape(1, -1, 320)
    return {
        "input_features": torch.from_numpy(both).float(),
        "attention_mask": torch.ones(1, both.shape[1], dtype=torch.long),
    }


def theirs_of(folder: Path, pcm: NDArray[np.int16]) -> Any:
    """What transformers gives the model for one clip."""
    if folder.name == "granite":
        return granite_features(pcm)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    wave = pcm.astype(np.float32) / 32768
    return extractor(wave, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)


@cache
def hugging_face(folder: Path) -> Any:
    return AutoModelForCTC.from_pretrained(folder).eval()


@cache
def alone(folder: Path, num_samples: int) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], str]:
    """Logits, hidden states and the text of `generate` at batch size 1."""
    inputs = theirs_of(folder, noise(num_samples, seed=num_samples))
    with torch.inference_mode():
        output = hugging_face(folder)(**inputs, output_hidden_states=True)
        tokens = hugging_face(folder).generate(**inputs)[0]
    text = AutoTokenizer.from_pretrained(folder).decode(tokens, skip_special_tokens=True)
    mask = inputs["padding_mask" if "padding_mask" in inputs else "attention_mask"]
    count = int(hugging_face(folder)._get_output_attention_mask(mask).sum())
    hidden = tuple(
        each[0] if each.shape[1] > len(output.logits[0]) else each[0, :count] for each in output.hidden_states
    )
    return output.logits[0, :count], hidden, " ".join(text.split())


@cache
def both(folder: Path) -> Any:
    """Our model, asked for text and every hidden state."""
    return loaded(folder, transcripts=NO_SPECIAL, vectors=WANTS)


def check_batch(folder: Path, lengths: list[int]) -> None:
    """What each row of one batch gives is what it gives alone in transformers."""
    model, batch = both(folder), segments(lengths)
    answers = model.forward(batch)
    texts = model.transcripts(batch, [answer.text for answer in answers])
    for segment, answer, text in zip(batch, answers, texts, strict=True):
        logits, hidden, expected = alone(folder, len(segment.pcm_T))
        for vectors, theirs in zip(answer.readout.vectors, hidden, strict=True):
            ours = torch.from_numpy(vectors.values_ND)
            assert ours.shape == theirs.shape and vectors.num_frames == len(theirs)
            assert (ours - theirs).norm() / theirs.norm() < MAX_RELATIVE_L2
        best_F2 = logits.log_softmax(-1).topk(2)
        labels, is_clear = answer.text.labels_F, (best_F2.values[:, 0] - best_F2.values[:, 1] > 1e-3).numpy()
        assert len(labels) == len(logits) and (labels == best_F2.indices[:, 0].numpy())[is_clear].all()
        assert np.abs(answer.text.logprobs_F - best_F2.values[:, 0].numpy()).max() < 1e-3
        if is_clear.all():
            assert text.text == expected


@pytest.mark.timeout(300)
def test_a_batch_gives_what_each_row_gives_alone_in_transformers(folder: Path) -> None:
    check_batch(folder, FIXED)
    assert len({word for n in FIXED for word in alone(folder, n)[2]}) > 2, "the test's model says more than one thing"


@settings(max_examples=daily(4, 12), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.integers(2_400, 8 * RATE), min_size=1, max_size=5))
def test_random_lengths_and_mixes_give_what_each_row_gives_alone(folder: Path, lengths: list[int]) -> None:
    check_batch(folder, lengths)


def test_the_order_and_company_of_rows_do_not_matter(folder: Path) -> None:
    model, batch = both(folder), segments(FIXED)
    together = [answer.text.labels_F.tolist() for answer in model.forward(batch)]
    assert [answer.text.labels_F.tolist() for answer in model.forward(batch[::-1])][::-1] == together
    assert [model.forward([each])[0].text.labels_F.tolist() for each in batch] == together


def test_the_shortest_audio_is_heard(folder: Path) -> None:
    """A sample, nothing, and silence: no row is lost, no value is not a number."""
    pcm = [np.zeros(0, np.int16), np.ones(1, np.int16), np.zeros(RATE, np.int16), noise(500)]
    batch = [Segment(each, 0, 0, (str(at), None), 0, None) for at, each in enumerate(pcm)]
    for answer in both(folder).forward(batch):
        assert np.isfinite(answer.text.logprobs_F).all()
        assert all(np.isfinite(vectors.values_ND).all() for vectors in answer.readout.vectors)


def test_layers_above_the_wanted_ones_are_not_computed_and_not_missed(folder: Path) -> None:
    model = loaded(folder, vectors=(VectorRequest(layer=2),))
    assert len(model._network.stack.layers) == 2
    for segment, answer in zip(segments(FIXED[1:3]), model.forward(segments(FIXED[1:3])), strict=True):
        theirs = alone(folder, len(segment.pcm_T))[1][2]
        assert (torch.from_numpy(answer.readout.vectors[0].values_ND) - theirs).norm() / theirs.norm() < MAX_RELATIVE_L2


@pytest.mark.parametrize("precision", ["bf16", "int8-w7a8-smooth"])
def test_in_coarser_numbers_a_row_is_what_it_is_alone(folder: Path, precision: str) -> None:
    if precision == "bf16" and "bf16" not in cpu_features():
        with pytest.raises(ModelError, match="has no bf16 products"):
            loaded(folder, precision)
        return
    model, batch = loaded(folder, precision), segments(FIXED[:3])
    together = [answer.text for answer in model.forward(batch)]
    for segment, ours in zip(batch, together, strict=True):
        single = model.forward([segment])[0].text
        is_clear = single.logprobs_F > np.log(0.6)
        assert (ours.labels_F == single.labels_F)[is_clear].all()
        if precision != "bf16":
            assert (ours.logprobs_F == single.logprobs_F).all(), "integers do not round by the batch"


def test_the_canary_compares_with_transformers(folder: Path) -> None:
    found = both(folder).parity(segments([30_000])[0])
    if folder.name == "granite":
        assert "torchaudio" in found.note
        ours, theirs = both(folder)._feed([noise(30_000)]), granite_features(noise(30_000))
        assert (ours["input_features"] - theirs["input_features"]).abs().max() < 1e-4
        return
    assert found.inputs < 1e-4 and found.outputs < 1e-4 and not found.note
    lower = loaded(folder, vectors=(VectorRequest(layer=2),)).parity(segments([30_000])[0])
    assert lower.outputs < 1e-4, "also where the layers above the wanted ones are gone"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("corpus")
    (made / "short.wav").write_bytes(encode(noise(20_000, 1)))
    (made / "long.wav").write_bytes(encode(noise(RATE * 70, 2)))
    (made / "broken.wav").write_bytes(b"no audio")
    return made


def test_a_run_gives_words_with_times_posteriors_vectors_and_codes(folder: Path, corpus: Path, tmp_path: Path) -> None:
    """Windows that overlap, of a recording beyond any limit of the model, are read as one."""
    run(corpus, tmp_path / "out", model=folder, segment="fixed", save_posteriors=5, verify_segments=1, part_seconds=40)
    check_accounts(tmp_path / "out")
    segments = rows(tmp_path / "out", "segments")
    assert len({row["recording_id"] for row in segments}) == 2 and sum(row["stop_s"] > 60 for row in segments) == 1
    for row in segments:
        starts = [word["start_s"] for word in row["words"]]
        assert row["text"].replace(" ", "") == "".join(word["word"] for word in row["words"]) and starts == sorted(
            starts
        )
        assert all(word["start_s"] < word["stop_s"] for word in row["words"])
        assert row["text"] == "" or 0 < row["confidence"] <= 1
    assert len(rows(tmp_path / "out", "posteriors")) == len(segments)
    run(corpus, tmp_path / "vectors", "embed", model=folder, layers="0,-1", pool="none", segment="fixed")
    by_layer: dict[int, list[Any]] = {}
    for row in rows(tmp_path / "vectors", "embeddings"):
        by_layer.setdefault(row["layer"], []).append(row)
    for found in by_layer.values():
        long = sorted(row["first_frame_s"] for row in found if row["num_frames"])
        rate = found[0]["frame_rate_hz"]
        ends = sorted((row["first_frame_s"], row["first_frame_s"] + row["num_frames"] / rate) for row in found)
        assert long and all(b[0] == pytest.approx(a[1], abs=1e-6) for a, b in pairwise(ends) if b[0] > 10)


def test_beam_search_and_hotwords_read_pieces(parakeet: Path, corpus: Path, tmp_path: Path) -> None:
    options = {"model": parakeet, "segment": "fixed", "drop_special_tokens": True}
    texts = {}
    for name, more in {
        "greedy": {},
        "beam": {"beam_size": 8},
        "hot": {"beam_size": 8, "hotwords": "the world"},
    }.items():
        run(corpus / "short.wav", tmp_path / name, **options, **more)
        (texts[name],) = (row["text"] for row in rows(tmp_path / name, "segments"))
    assert texts["greedy"] and texts["beam"] and len(texts["hot"].split()) >= 1


def test_what_a_folder_lacks_is_told_in_one_line(parakeet: Path, corpus: Path, tmp_path: Path) -> None:
    def broken(name: str, *missing: str) -> Path:
        shutil.copytree(parakeet, tmp_path / name)
        for each in missing:
            (tmp_path / name / each).unlink()
        return tmp_path / name

    for folder, expected in (
        (broken("tokens", "tokenizer.json", "tokenizer_config.json"), "no tokenizer for its CTC head"),
        (broken("features", "preprocessor_config.json"), "nothing says how audio becomes features"),
        (broken("weights", "model.safetensors"), "no weights found"),
    ):
        with pytest.raises(ModelError, match=expected) as told:
            run(corpus / "short.wav", tmp_path / "out", model=folder, overwrite=True)
        assert "\n" not in str(told.value)
    config = json.loads((parakeet / "config.json").read_text())
    headless = broken("headless")
    (headless / "config.json").write_text(
        json.dumps({**config["encoder_config"], "architectures": ["ParakeetEncoder"]})
    )
    with pytest.raises(ModelError, match="a checkpoint without CTC head"):
        run(corpus / "short.wav", tmp_path / "none", model=headless)
    other = broken("other")
    (other / "config.json").write_text(json.dumps({**config, "model_type": "moshi"}))
    with pytest.raises(ModelError, match=r"model type 'moshi' .* is not read here; nearest here: wav2vec2"):
        run(corpus / "short.wav", tmp_path / "none", model=other)
