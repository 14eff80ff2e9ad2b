"""Transformers' model as a classifier of frames. B batch, T samples, F frames, S speakers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.config.defaults import WINDOW_S
from audiomill.models.base import Parity
from audiomill.models.frames.encoders import extractor_of
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.speakers.diarizer import FrameClassifier

_HOP = 160
_WINDOW = samples_from_seconds(WINDOW_S)
_LEAST_SAMPLES = 1600
_THRESHOLD = 0.5
"""Of a speaker's probability, as in the model's own processor."""


def load_nemotron(path: Path, device: str) -> FrameClassifier:
    """From a local folder.

    Raises:
        ModelError: weights or feature-extractor files are missing or do not fit.
    """
    from transformers import AutoModelForAudioFrameClassification

    extractor = extractor_of(path, MODEL_SAMPLE_RATE)
    model = loaded_whole(AutoModelForAudioFrameClassification, path, torch.float32).to(device).eval()

    def activity(wave_BT: Tensor) -> tuple[Tensor, Tensor]:
        given: Any = extractor(list(wave_BT.cpu().numpy()), sampling_rate=MODEL_SAMPLE_RATE, return_tensors="pt")
        features_BFM = given["input_features"].to(device)
        mask_BF = given["attention_mask"].to(device)
        probability_BFS = model(input_features=features_BFM, attention_mask=mask_BF).logits.sigmoid()
        probability_BFS = probability_BFS[:, : int(mask_BF.sum(1).max())]
        return probability_BFS, probability_BFS > _THRESHOLD

    return FrameClassifier(
        activity,
        _HOP,
        0,
        _LEAST_SAMPLES,
        torch.device(device),
        window=_WINDOW,
        step=1,
        parity=lambda pcm_T: Parity(note="input and forward pass: they are transformers' own"),
    )
