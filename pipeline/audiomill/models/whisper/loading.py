"""A Whisper folder -> a model, with the second model as its last fallback level."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from audiomill.models.base import RequestedOutputs, SpeechModel
from audiomill.models.checkpoint import find_checkpoint
from audiomill.models.family import Loading
from audiomill.models.finite import check_weights
from audiomill.models.load import dtype_of
from audiomill.models.vectors.readout import Quantizer
from audiomill.models.whisper.folder import tokenizer_of
from audiomill.models.whisper.model import WhisperCheckpoint, WhisperModel
from audiomill.models.whisper.parts import whisper_parts
from audiomill.models.whisper.timing import heads_of
from audiomill.models.whisper.tokens import numeral_tokens, tokens_of


def load_whisper_task(loading: Loading) -> SpeechModel:
    """The model of a task, with the second model as its last fallback level where one is wanted."""
    config, requested, device = loading.task.model, loading.task.requested, loading.device
    text, second = requested.transcripts, None
    if text is not None and text.second_pass_model is not None:
        named = dataclasses.replace(config, model=text.second_pass_model)
        behind = Path(find_checkpoint(named, loading.storage_options).path)
        second = load_whisper(
            behind, device, config.precision, RequestedOutputs(transcripts=text), {}, config.memory_fraction
        )
    quantizers, memory = loading.quantizers, config.memory_fraction
    return load_whisper(loading.path, device, config.precision, requested, quantizers, memory, second)


def load_whisper(
    folder: Path,
    device: torch.device,
    precision: str,
    requested: RequestedOutputs,
    quantizers: Mapping[str, Quantizer],
    memory_fraction: float,
    second: WhisperModel | None = None,
) -> WhisperModel:
    """Whisper from a Hugging Face or CTranslate2 folder."""
    model, generation = whisper_parts(folder)
    tokenizer = tokenizer_of(folder)
    if requested.text.suppress_numerals:
        numerals = numeral_tokens(tokenizer, tokenizer.token_to_id("<|endoftext|>"))
        generation["suppress_tokens"] = [*(generation.get("suppress_tokens") or ()), *numerals]
    check_weights(model, folder)
    tokens = tokens_of(tokenizer, model.config.vocab_size, generation)
    # CPUs have fast products in bf16 and int8, and nothing else: activations stay in float32.
    model = model.to(device=device, dtype=torch.float32 if device.type == "cpu" else dtype_of(precision)).eval()
    shape = (model.config.decoder_layers, model.config.decoder_attention_heads)
    heads = heads_of(generation.get("alignment_heads"), *shape)
    checkpoint = WhisperCheckpoint(model, tokenizer, tokens, heads)
    return WhisperModel(checkpoint, requested, quantizers, precision, memory_fraction, folder, second)
