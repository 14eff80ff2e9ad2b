"""Whisper compared with transformers' own: the same audio through their feature extractor and their encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.config.defaults import WINDOW_S
from audiomill.models.base import Parity, stack_rows
from audiomill.models.preprocessing_files import compared, feature_extractor
from audiomill.models.vectors.forward_hooks import without_layers_above
from audiomill.models.whisper import ctranslate2
from audiomill.models.whisper.encode_decode import WhisperWeights
from audiomill.models.whisper.network.encoder import run_encoder
from audiomill.models.whisper.parts import transformers_parts

_WINDOW_SAMPLES = samples_from_seconds(WINDOW_S)


def whisper_parity(folder: Path, model: Any, weights: WhisperWeights, segment: Segment) -> Parity:
    """Compares the log-mel of a full window, and what the encoder makes of it.

    Args:
        folder: of the checkpoint, from which theirs is loaded again.
        model: as it was loaded here.
        weights: taken from it, which compute here.
        segment: alone.
    """
    from transformers import WhisperFeatureExtractor

    extractor = feature_extractor(folder) or WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    waveform = segment.pcm_T[:_WINDOW_SAMPLES].astype(np.float32) / 32768.0
    theirs = extractor(waveform, sampling_rate=MODEL_SAMPLE_RATE, return_tensors="pt").input_features
    pcm_BT = torch.from_numpy(stack_rows([segment], _WINDOW_SAMPLES)).to(model.device)
    ours = weights.mel(pcm_BT.float() / 32768.0)

    def outputs() -> tuple[Tensor, Tensor]:
        hidden = run_encoder(weights.encoder, ours.to(weights.encoder.dtype))[len(weights.encoder.layers)]
        encoder = transformers_parts(folder)[0].model.encoder.to(model.device, model.dtype)
        without_layers_above(encoder, len(weights.encoder.layers))
        return hidden, encoder(theirs.to(model.device, model.dtype)).last_hidden_state

    is_foreign = ctranslate2.is_ctranslate2(folder)
    note = "weights: a CTranslate2 folder, which transformers does not read" if is_foreign else ""
    return compared(model, (ours, theirs), outputs, note)
