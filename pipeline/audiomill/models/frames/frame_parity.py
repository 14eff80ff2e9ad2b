"""A model of the wav2vec2 family beside transformers' own: the same audio through their processor and their forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.base import Parity, Utterance
from audiomill.models.frames.inputs import FrameInputs
from audiomill.models.frames.renamed import with_real_names
from audiomill.models.preprocessing_files import MAX_COMPARED_PARAMETERS, PREPROCESSOR, feature_extractor, relative


def frame_model_parity(
    folder: Path, model: Any, inputs: FrameInputs, utterance: Utterance, language: str | None, trust_remote_code: bool
) -> Parity:
    """Compares what is given to the model, and the logits (without a head: what enters its last layer here).

    Args:
        folder: of the checkpoint.
        model: as it runs here, masks and all.
        inputs: feeds it.
        utterance: alone, longer than what the model can hear.
        language: of the adapter that was loaded.
        trust_remote_code: see `--trust-remote-code`.
    """
    extractor = feature_extractor(folder)
    if extractor is None:
        return Parity(note=f"input and forward pass: no {PREPROCESSOR} says how transformers prepares audio")
    ours = inputs([utterance.pcm_T])
    waveform = utterance.pcm_T.astype(np.float32) / 32768.0
    theirs = extractor(waveform, sampling_rate=MODEL_SAMPLE_RATE, return_tensors="pt")
    name = "input_features" if "input_features" in ours else "input_values"
    frames = min(ours[name].shape[1], theirs[name].shape[1])  # theirs drops an odd mel frame
    apart = relative(ours[name][:, :frames], theirs[name][:, :frames])
    if sum(parameter.numel() for parameter in model.parameters()) > MAX_COMPARED_PARAMETERS:
        return Parity(apart, note=f"forward pass: more than {MAX_COMPARED_PARAMETERS // 1_000_000} M parameters")
    plain = (
        type(model)
        .from_pretrained(with_real_names(folder), dtype=torch.float32, trust_remote_code=trust_remote_code)
        .eval()
    )
    if language:
        plain.load_adapter(language)
    expected = _hidden_state(plain, theirs, model)
    num_frames_B = inputs.text_frames_B() if hasattr(model, "lm_head") else inputs.frames_B()  # the rest is padding
    return Parity(apart, relative(_hidden_state(model, ours, model)[:, : int(num_frames_B[0])], expected))


def _hidden_state(model: Any, inputs: Any, running: Any) -> Tensor:
    """Logits, or the hidden states before the last layer that runs here."""
    if hasattr(model, "lm_head"):
        out: Tensor = model(**inputs).logits
        return out
    num_layers = len(running.base_model.encoder.layers) - 1
    states: Tensor = model(**inputs, output_hidden_states=True).hidden_states[num_layers]
    return states
