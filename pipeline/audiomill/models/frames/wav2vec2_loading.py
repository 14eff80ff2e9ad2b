"""How checkpoints of the wav2vec2 family are loaded: wav2vec2, HuBERT, WavLM, data2vec-audio, wav2vec2-BERT and their relatives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.config.defaults import INT8_BF16
from audiomill.errors import ModelError
from audiomill.models.base import Parity, RequestedOutputs
from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.frames.bf16_convolutions import with_bf16_convolutions
from audiomill.models.frames.exact import with_plain_weights
from audiomill.models.frames.frame_network import FrameNetwork
from audiomill.models.frames.inputs import FrameInputs, fbank_of, normalizes
from audiomill.models.frames.int8_layers import with_int8_layers
from audiomill.models.frames.model import FrameModel
from audiomill.models.frames.whole import loaded_whole, with_real_names
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.preprocessing_files import PREPROCESSOR, compared, feature_extractor
from audiomill.models.vectors.readout import Quantizer


def frame_model_parity(
    folder: Path, model: Any, inputs: FrameInputs, segment: Segment, language: str | None, trust_remote_code: bool
) -> Parity:
    """Compares what is given to the model, and the logits (without a head: what enters its last layer here).

    Args:
        folder: of the checkpoint.
        model: as it runs here, masks and all.
        inputs: feeds it.
        segment: alone, longer than what the model can hear.
        language: of the adapter that was loaded.
        trust_remote_code: see `--trust-remote-code`.
    """
    extractor = feature_extractor(folder)
    if extractor is None:
        return Parity(note=f"input and forward pass: no {PREPROCESSOR} says how transformers prepares audio")
    ours = inputs([segment.pcm_T])
    waveform = segment.pcm_T.astype(np.float32) / 32768.0
    theirs = extractor(waveform, sampling_rate=MODEL_SAMPLE_RATE, return_tensors="pt")
    name = "input_features" if "input_features" in ours else "input_values"
    frames = min(ours[name].shape[1], theirs[name].shape[1])  # theirs drops an odd mel frame

    def outputs() -> tuple[Tensor, Tensor]:
        settings = {"dtype": torch.float32, "trust_remote_code": trust_remote_code}
        plain = type(model).from_pretrained(with_real_names(folder), **settings).eval()
        if language:
            plain.load_adapter(language)
        expected = _hidden_state(plain, theirs, model)
        num_frames_B = inputs.text_frames_B() if hasattr(model, "lm_head") else inputs.frames_B()  # the rest is padding
        return _hidden_state(model, ours, model)[:, : int(num_frames_B[0])], expected

    return compared(model, (ours[name][:, :frames], theirs[name][:, :frames]), outputs)


def _hidden_state(model: Any, inputs: Any, running: Any) -> Tensor:
    """Logits, or the hidden states before the last layer that runs here."""
    if hasattr(model, "lm_head"):
        out: Tensor = model(**inputs).logits
        return out
    num_layers = len(running.base_model.encoder.layers) - 1
    states: Tensor = model(**inputs, output_hidden_states=True).hidden_states[num_layers]
    return states


MAY_BE_MISSING = ("masked_spec_embed", "adapter.")
"""Tensors that checkpoints lack without harm: used in training only, or loaded by language."""

INT8_FRAMES = 32
"""Rows that are computed alone are padded to a multiple of so many frames: oneDNN makes a kernel for each shape, which
costs a quarter of the time where every row has its own, and keeps about a thousand."""


def load_frame_model(
    folder: Path,
    device: torch.device,
    precision: str,
    requested: RequestedOutputs,
    quantizers: Mapping[str, Quantizer],
    trust_remote_code: bool,
    storage_options: dict[str, Any] | None = None,
) -> FrameModel:
    """A wav2vec2-family checkpoint from a local folder; with its CTC head where text is wanted.

    Raises:
        ModelError: weights, tokenizer or preprocessor files are missing or do not fit.
    """
    from transformers import AutoModel, AutoModelForCTC

    kind = AutoModelForCTC if requested.has_head else AutoModel
    language = requested.text.language
    model = loaded_whole(kind, folder, torch.float32, MAY_BE_MISSING, trust_remote_code)
    adapted = language if getattr(model.config, "adapter_attn_dim", None) else None
    vocabulary = None
    if requested.has_head:
        tokenizer = ctc_tokenizer(folder, adapted, trust_remote_code)
        if adapted:
            load_adapter(model, adapted, folder)
        vocabulary = ctc_vocabulary(tokenizer, model.config.vocab_size, model.config.pad_token_id)
    with_plain_weights(model)
    model = model.to(device=device, dtype=torch.float32 if is_int8(precision) else dtype_of(precision)).eval()
    multiple = INT8_FRAMES if is_int8(precision) else 1
    feed = FrameInputs(model, fbank_of(folder, model), normalizes(folder), multiple)
    if is_int8(precision):
        with_int8_layers(model.base_model.encoder, precision)
    if precision == INT8_BF16:
        with_bf16_convolutions(model.base_model)
    network = FrameNetwork(
        model=model,
        body=model.base_model,
        stack=model.base_model.encoder,
        feed=feed,
        parity=lambda segment: frame_model_parity(folder, model, feed, segment, adapted, trust_remote_code),
        convolutions=lambda inputs: model.base_model.feature_extractor(inputs["input_values"]).transpose(1, 2),
    )
    more: dict[str, Any] = {"storage_options": storage_options, "one_by_one": is_int8(precision)}
    return FrameModel(network, vocabulary, requested, quantizers, language=language, **more)


def load_adapter(model: Any, language: str, folder: Path) -> None:
    """The adapter and head of a language (MMS), in place.

    Raises:
        ModelError: the folder has none of it.
    """
    try:
        model.load_adapter(language)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"--language {language}: {folder} has no adapter of it; expected adapter.{language}.safetensors"
        ) from error
