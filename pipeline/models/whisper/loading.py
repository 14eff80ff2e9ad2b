"""A Whisper folder -> its model, tokenizer and generation settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from audiomill.errors import ModelError
from audiomill.models.base import SpeechModel, Wants
from audiomill.models.checkpoint import find_checkpoint
from audiomill.models.family import Loading
from audiomill.models.finite import check_weights
from audiomill.models.load import dtype_of
from audiomill.models.readout import Quantizer
from audiomill.models.whisper import ctranslate2
from audiomill.models.whisper.ladder import WhisperLadder
from audiomill.models.whisper.model import WhisperModel
from audiomill.models.whisper.timing import heads_of
from audiomill.models.whisper.tokens import numeral_tokens, tokens_of


def load(loading: Loading) -> SpeechModel:
    """The model of a task, with the second one behind its ladder where one is wanted."""
    config, wants, device = loading.task.model, loading.task.wants, loading.device
    first = load_whisper(
        loading.path, device, config.precision, wants, loading.quantizers, config.memory_fraction
    )  # fmt: skip
    text = wants.transcripts
    if text is not None and text.second_model is not None:
        named = dataclasses.replace(config, model=text.second_model)
        behind = Path(find_checkpoint(named, loading.storage_options).path)
        second = load_whisper(behind, device, config.precision, Wants(transcripts=text), {}, config.memory_fraction)
        first.ladder = WhisperLadder(first, text, second)
    return first


def load_whisper(
    folder: Path,
    device: torch.device,
    precision: str,
    wants: Wants,
    quantizers: Mapping[str, Quantizer],
    memory_fraction: float,
) -> WhisperModel:
    """Whisper from a Hugging Face or CTranslate2 folder."""
    model, generation = whisper_parts(folder)
    tokenizer = tokenizer_of(folder)
    if wants.transcripts is not None and wants.transcripts.suppress_numerals:
        numerals = numeral_tokens(tokenizer, tokenizer.token_to_id("<|endoftext|>"))
        generation["suppress_tokens"] = [*(generation.get("suppress_tokens") or ()), *numerals]
    check_weights(model, folder)
    tokens = tokens_of(tokenizer, model.config.vocab_size, generation)
    # CPUs have fast products in bf16 and int8, and nothing else: activations stay in float32.
    model = model.to(device=device, dtype=torch.float32 if device.type == "cpu" else dtype_of(precision)).eval()
    shape = (model.config.decoder_layers, model.config.decoder_attention_heads)
    heads = heads_of(generation.get("alignment_heads"), *shape)
    found = WhisperModel(model, tokenizer, tokens, wants, quantizers, heads, precision, memory_fraction, folder)
    if wants.transcripts is not None and wants.transcripts.retry:
        found.ladder = WhisperLadder(found, wants.transcripts)
    return found


def whisper_parts(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A float32 `WhisperForConditionalGeneration`, and its suppressed tokens and alignment heads."""
    from transformers import WhisperForConditionalGeneration

    if ctranslate2.is_ctranslate2(folder):
        settings = ctranslate2.read_settings(folder)
        return ctranslate2.load_whisper(folder), {
            "suppress_tokens": settings.get("suppress_ids"),
            "begin_suppress_tokens": settings.get("suppress_ids_begin"),
            "alignment_heads": settings.get("alignment_heads"),
        }
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return model, model.generation_config.to_dict()


def tokenizer_of(folder: Path) -> Any:
    """The fast tokenizer, made from vocab.json and merges.txt where there is no tokenizer.json.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from tokenizers import Tokenizer
    from transformers import WhisperTokenizerFast

    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise ModelError(
            f"{folder}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt, beside the weights"
        )
    try:
        if (folder / "tokenizer.json").exists():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        return WhisperTokenizerFast.from_pretrained(folder).backend_tokenizer
    except Exception as error:  # tokenizers raises nothing narrower
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{folder}: its tokenizer cannot be read ({reason}); take the checkpoint's own files"
        ) from error
