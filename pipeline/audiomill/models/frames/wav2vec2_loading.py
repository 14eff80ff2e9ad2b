"""How checkpoints of the wav2vec2 family are loaded: wav2vec2, HuBERT, WavLM, data2vec-audio, wav2vec2-BERT and their relatives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from audiomill.config.defaults import INT8_BF16
from audiomill.errors import ModelError
from audiomill.models.base import RequestedOutputs
from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.frames.bf16_convolutions import with_bf16_convolutions
from audiomill.models.frames.exact import with_plain_weights
from audiomill.models.frames.frame_network import FrameNetwork
from audiomill.models.frames.frame_parity import frame_model_parity
from audiomill.models.frames.inputs import FrameInputs, fbank_of, normalizes
from audiomill.models.frames.integers import with_int8_layers
from audiomill.models.frames.model import FrameModel
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.vectors.readout import Quantizer

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

    kind = AutoModel if requested.transcripts is None and not requested.aligns else AutoModelForCTC
    language = None if requested.transcripts is None else requested.transcripts.language
    model = loaded_whole(kind, folder, torch.float32, MAY_BE_MISSING, trust_remote_code)
    vocabulary = None
    if requested.transcripts is not None or requested.aligns:
        adapted = language if getattr(model.config, "adapter_attn_dim", None) else None
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
    adapted = language if getattr(model.config, "adapter_attn_dim", None) else None
    network = FrameNetwork(
        model=model,
        body=model.base_model,
        stack=model.base_model.encoder,
        feed=feed,
        parity=lambda utterance: frame_model_parity(folder, model, feed, utterance, adapted, trust_remote_code),
        convolutions=lambda inputs: model.base_model.feature_extractor(inputs["input_values"]).transpose(1, 2),
    )
    return FrameModel(
        network,
        vocabulary,
        requested,
        quantizers,
        language=language,
        storage_options=storage_options,
        one_by_one=is_int8(precision),
    )


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
