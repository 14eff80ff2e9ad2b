"""Every family against Hugging Face's own forward pass at batch size 1: hidden states, logits, labels and text."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

from audiomill.audio.cutting.segment import Segment
from audiomill.config.defaults import INT8, INT8_BF16, INT8_WEIGHT7
from audiomill.errors import ModelError
from audiomill.models.base import VectorRequest
from audiomill.models.precision import cpu_features
from tests.support.jobs_by_hand import loaded, run
from tests.support.scale import daily
from tests.support.synth import encode, noise

FIXED = daily([400, 1_999, 16_001, 40_123, 100_017], [400, 1_999, 16_000, 16_001, 40_123, 80_000, 160_017])
WANTS = tuple(VectorRequest(layer=layer) for layer in range(3))
MAX_RELATIVE_L2 = 1e-4
MINUTE = 16_000 * 60


def segments(lengths: list[int]) -> list[Segment]:
    return [Segment(noise(n, seed=n), 0, 0, (str(n), None), 0, None) for n in lengths]


@cache
def hugging_face(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCTC.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)


@cache
def alone(folder: Path, num_samples: int) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Logits and hidden states of Hugging Face at batch size 1."""
    model, extractor = hugging_face(folder)
    pcm = noise(num_samples, seed=num_samples)
    inputs = extractor(pcm.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt")
    inputs.pop("attention_mask", None) if model.config.model_type != "wav2vec2-bert" else None
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    return output.logits[0], tuple(hidden[0] for hidden in output.hidden_states)


@cache
def both(folder: Path) -> Any:
    """Our model, asked for text and every hidden state."""
    from audiomill.config.text import TranscriptConfig

    return loaded(folder, transcripts=TranscriptConfig(), vectors=WANTS)


def minimum(folder: Path) -> int:
    return 1_999 if "bert" in folder.name else 400


def check_batch(folder: Path, lengths: list[int]) -> None:
    """What each row of one batch gives is what it gives alone in Hugging Face."""
    model, batch = both(folder), segments(lengths)
    answers = model.forward(batch)
    texts = model.transcripts(batch, [answer.text for answer in answers])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for segment, answer, text in zip(batch, answers, texts, strict=True):
        logits, hidden = alone(folder, len(segment.pcm_T))
        for vectors, theirs in zip(answer.readout.vectors, hidden, strict=True):
            ours = torch.from_numpy(vectors.values_ND)
            assert ours.shape == theirs.shape and vectors.num_frames == len(theirs)
            assert not ours.isnan().any() and (ours - theirs).norm() / theirs.norm() < MAX_RELATIVE_L2
        best_F2 = logits.log_softmax(-1).topk(2)
        labels, is_clear = answer.text.labels_F, (best_F2.values[:, 0] - best_F2.values[:, 1] > 1e-3).numpy()
        assert (len(labels) < 20 or is_clear.mean() > 0.5) and (labels == best_F2.indices[:, 0].numpy())[is_clear].all()
        assert np.abs(answer.text.logprobs_F - best_F2.values[:, 0].numpy()).max() < 1e-3
        assert text.text == " ".join(tokenizer.decode(labels).split())


@pytest.mark.timeout(300)
def test_a_batch_gives_what_each_row_gives_alone_in_hugging_face(ctc_folder: Path) -> None:
    lengths = [n for n in FIXED if n >= minimum(ctc_folder)]
    check_batch(ctc_folder, lengths)
    check_batch(ctc_folder, [minimum(ctc_folder), MINUTE])


@settings(max_examples=daily(4, 8), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.integers(400, 12 * 16_000), min_size=1, max_size=6))
def test_random_lengths_and_mixes_give_what_each_row_gives_alone(ctc_folder: Path, lengths: list[int]) -> None:
    check_batch(ctc_folder, [max(minimum(ctc_folder), n) for n in lengths])


def test_the_order_and_company_of_rows_do_not_matter(ctc_folder: Path) -> None:
    model = both(ctc_folder)
    batch = segments([n for n in FIXED if n >= 1_999])
    together = [answer.text.labels_F.tolist() for answer in model.forward(batch)]
    assert [answer.text.labels_F.tolist() for answer in model.forward(batch[::-1])][::-1] == together
    pairs = [model.forward([u, batch[0]])[0].text.labels_F.tolist() for u in batch]
    assert pairs == together


def test_layers_above_the_wanted_ones_are_not_computed_and_not_missed(ctc_folder: Path) -> None:
    model = loaded(ctc_folder, vectors=(VectorRequest(layer=1),))
    assert len(model._network.stack.layers) == 1
    for segment, answer in zip(segments(FIXED[1:4]), model.forward(segments(FIXED[1:4])), strict=True):
        theirs = alone(ctc_folder, len(segment.pcm_T))[1][1]
        ours = torch.from_numpy(answer.readout.vectors[0].values_ND)
        assert (ours - theirs).norm() / theirs.norm() < MAX_RELATIVE_L2


def test_plain_hugging_face_batches_are_wrong_where_ours_are_right(wav2vec2_folder: Path) -> None:
    """What this module is for: the same comparison fails with naive padding."""
    model, extractor = hugging_face(wav2vec2_folder)
    clips = [noise(n, seed=n).astype(np.float32) / 32768 for n in (16_000, 160_017)]
    inputs = extractor(clips, sampling_rate=16_000, return_tensors="pt", padding=True)
    with torch.inference_mode():
        hidden = model(**inputs, output_hidden_states=True).hidden_states[1][0]
    theirs = alone(wav2vec2_folder, 16_000)[1][1]
    assert (hidden[: len(theirs)] - theirs).norm() / theirs.norm() > 0.05


def test_windows_with_context_leave_every_frame_once(wav2vec2_folder: Path) -> None:
    from audiomill.models.ctc.greedy_decoding import _core_frames

    model = both(wav2vec2_folder)
    pcm, core, context = noise(16_000 * 50), 1_280 * 60, 1_280 * 20
    windows = []
    for start in range(0, len(pcm), core):
        stop = min(start + core, len(pcm))
        left, right = min(context, start), min(context, len(pcm) - stop)
        windows.append(Segment(pcm[start - left : stop + right], left, right, ("r", None), start, None))
    answers = model.forward(windows)
    expected = int(model._network.body._get_feat_extract_output_lengths(len(pcm)))
    _, _, starts = _core_frames(windows, [answer.text for answer in answers], 320)
    assert starts.tolist() == list(range(0, 320 * expected, 320))
    assert sum(answer.readout.vectors[0].num_frames for answer in answers) == expected


def test_weights_that_lack_tensors_are_not_filled_with_noise(wav2vec2_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in wav2vec2_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layers.1.attention" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 8 tensors"):
        loaded(tmp_path, vectors=WANTS)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "hidden_size": 64}))
    with pytest.raises(ModelError):
        loaded(tmp_path, vectors=WANTS)


FINEST_INT8 = INT8_BF16 if "bf16" in cpu_features() else INT8
"""Of this processor: without bf16 products convolutions stay in fp32."""


@pytest.mark.parametrize("precision", [INT8_WEIGHT7, FINEST_INT8])
def test_in_int8_a_batch_has_the_bits_of_its_rows_and_is_near_fp32(ctc_folder: Path, precision: str) -> None:
    from audiomill.config.text import TranscriptConfig

    lengths = [n for n in FIXED if n >= minimum(ctc_folder)][:3]
    coarse = loaded(ctc_folder, precision=precision, transcripts=TranscriptConfig(), vectors=WANTS)
    batch = segments(lengths)
    together, fine = coarse.forward(batch), both(ctc_folder).forward(batch)
    for segment, answer, theirs in zip(batch, together, fine, strict=True):
        (alone_,) = coarse.forward([segment])
        for mine, same, near in zip(
            answer.readout.vectors, alone_.readout.vectors, theirs.readout.vectors, strict=True
        ):
            assert np.array_equal(mine.values_ND, same.values_ND)
            assert np.linalg.norm(mine.values_ND - near.values_ND) < 0.1 * np.linalg.norm(near.values_ND)
        assert not np.array_equal(answer.readout.vectors[-1].values_ND, theirs.readout.vectors[-1].values_ND)


def test_in_int8_the_number_of_threads_does_not_change_a_bit(wav2vec2_folder: Path) -> None:
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        model = loaded(wav2vec2_folder, precision=FINEST_INT8, vectors=WANTS)
        torch.set_num_threads(threads)
        found += [answer.readout.vectors[-1].values_ND for answer in model.forward(segments([320_000]))]
        torch.set_num_threads(before)
    assert np.array_equal(found[0], found[1])
    if FINEST_INT8 == INT8_BF16:
        assert np.array_equal(found[0], found[2])
    else:  # convolutions in fp32, which oneDNN cuts by the number of threads: last bits
        assert np.abs(found[0] - found[2]).max() < 1e-5 * np.abs(found[0]).max()


def test_int8_is_taken_where_it_is_asked_for_and_never_by_auto(wav2vec2_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(encode(noise(20_000)))
    for asked, job in (("auto", "transcribe"), ("int8", "embed")):
        run(tmp_path / "in", tmp_path / asked, job, model=wav2vec2_folder, precision=asked)
        settled = json.loads((tmp_path / asked / "run.json").read_text())["results"]["precision"]
        assert settled.split("-")[0] == ("fp32" if asked == "auto" else "int8")
