"""Every CTC family against Hugging Face's own forward pass at batch size 1: numbers, labels and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

from pipeline.models.base import Utterance
from pipeline.models.wav2vec2 import CtcTranscriber, load_ctc
from tests.synth import noise

LENGTHS = [400, 1_999, 16_000, 16_001, 40_123, 80_000, 160_017]


def utterances(lengths: list[int]) -> list[Utterance]:
    return [Utterance(noise(n, seed=n), 0, 0, (str(n), None), 0, None) for n in lengths]


def hf_logits(folder: Path, pcm: Any) -> torch.Tensor:
    model, extractor = AutoModelForCTC.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(pcm.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt")
    inputs.pop("attention_mask", None) if model.config.model_type != "wav2vec2-bert" else None
    with torch.inference_mode():
        return model(**inputs).logits[0]


def load(folder: Path) -> CtcTranscriber:
    return load_ctc(folder, torch.device("cpu"), torch.float32, None, False)


@pytest.mark.timeout(300)
def test_a_batch_gives_what_each_row_gives_alone_in_hugging_face(ctc_folder: Path) -> None:
    transcriber = load(ctc_folder)
    minimum = 1_999 if "bert" in ctc_folder.name else 400
    lengths = [n for n in LENGTHS if n >= minimum]
    batch = utterances(lengths)
    inputs = transcriber._features(batch) if transcriber._extractor is not None else transcriber._waveforms(batch)
    with torch.inference_mode():
        logits_BFV = transcriber._model(**inputs).logits
    labels = transcriber.decode(batch)
    tokenizer = AutoTokenizer.from_pretrained(ctc_folder)
    texts = transcriber.finish(batch, labels)
    for row, utterance in enumerate(batch):
        theirs = hf_logits(ctc_folder, utterance.pcm_T)
        ours = logits_BFV[row, : len(theirs)]
        assert (ours - theirs).norm() / theirs.norm() < 1e-4
        assert labels[row].labels_F.tolist() == theirs.argmax(-1).tolist()
        assert texts[row].text == " ".join(tokenizer.decode(theirs.argmax(-1)).split())


def test_the_order_and_company_of_rows_do_not_matter(ctc_folder: Path) -> None:
    transcriber = load(ctc_folder)
    batch = utterances([n for n in LENGTHS if n >= 1_999])
    together = [each.labels_F.tolist() for each in transcriber.decode(batch)]
    assert [each.labels_F.tolist() for each in transcriber.decode(batch[::-1])][::-1] == together
    pairs = [transcriber.decode([u, batch[0]])[0].labels_F.tolist() for u in batch]
    assert pairs == together


def test_windows_with_context_leave_every_frame_once(wav2vec2_folder: Path) -> None:
    from pipeline.models.ctc import _core_frames

    transcriber = load(wav2vec2_folder)
    pcm, core, context = noise(16_000 * 50), 1_280 * 60, 1_280 * 20
    windows = []
    for start in range(0, len(pcm), core):
        stop = min(start + core, len(pcm))
        left, right = min(context, start), min(context, len(pcm) - stop)
        windows.append(Utterance(pcm[start - left : stop + right], left, right, ("r", None), start, None))
    _, _, starts = _core_frames(windows, transcriber.decode(windows), 320)
    assert starts.tolist() == list(range(0, 320 * len(starts), 320))
    assert len(starts) == int(transcriber._model._get_feat_extract_output_lengths(len(pcm)))
