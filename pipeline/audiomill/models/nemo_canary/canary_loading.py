"""How Canary is loaded and told what to write."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.errors import ModelError
from audiomill.models.base import SpeechModel
from audiomill.models.family import Loading
from audiomill.models.fastconformer.fast_conformer import encoder
from audiomill.models.fastconformer.frame_clock import fastconformer_shape
from audiomill.models.matrix_products import fused, projection
from audiomill.models.nemo_canary.trained_languages import LANGUAGES
from audiomill.models.seq2seq.decoder_weights import DecoderWeights, Function, decoder_layer, num_heads, special_tokens
from audiomill.models.seq2seq.generation import DecoderAdapter
from audiomill.models.seq2seq.model import load_encoder_decoder


def canary_decoder(model: Any, folder: Path, precision: str) -> DecoderWeights:
    """Of a `CanaryForConditionalGeneration`.

    Raises:
        ModelError: see `num_heads`.
    """
    decoder, config = model.model.decoder, model.config.decoder_config
    tokens_VD, norm = decoder.embed_tokens.weight.detach(), decoder.embedding_layernorm
    waves_PD = (decoder.pos_emb.positional_embedding / math.sqrt(config.hidden_size)).to(tokens_VD)
    return DecoderWeights(
        embed=lambda tokens, places: norm(tokens_VD[tokens] + waves_PD[places]),
        layers=[decoder_layer(layer, precision, _feed_forward) for layer in decoder.layers],
        norm=decoder.norm,
        vocabulary=projection(model.proj_out.weight, model.proj_out.bias, precision),
        num_heads=num_heads(config, folder),
        width=config.hidden_size,
        max_positions=config.max_position_embeddings,
        device=tokens_VD.device,
        dtype=tokens_VD.dtype,
    )


def _feed_forward(mlp: Any, precision: str) -> Function:
    fc1, fc2, act = fused([mlp.fc1], precision), fused([mlp.fc2], precision), mlp.activation_fn

    def run(x_BLD: Tensor) -> Tensor:
        return fc2(act(fc1(x_BLD)))

    return run


ENCODED_AT_ONCE_S = 480.0
"""On a GPU."""


def load_canary(loading: Loading) -> SpeechModel:
    """A checkpoint from a local folder."""
    kind = dataclasses.replace(encoder(fastconformer_shape(loading.path).hop), body=lambda model: model.model.encoder)

    def writer(model: Any, precision: str) -> DecoderAdapter:
        text, processor = loading.task.requested.transcripts, _processor(loading.path)
        assert text is not None and text.language is not None, "checked before anything was started"
        default, into_english, punctuation = text.language, text.task == "translate", text.punctuation

        def language(segment: Segment) -> str:
            return segment.language if segment.language in LANGUAGES else default

        @cache
        def prompt(spoken: str | None) -> list[int]:
            assert spoken is not None, "a language is always said"
            return _prompt(processor, spoken, "en" if into_english else spoken, punctuation, loading.path)

        return DecoderAdapter(
            weights=canary_decoder(model, loading.path, precision),
            tokens=special_tokens(model, prompt(default)[0], model.config.vocab_size),
            decoded=lambda rows: processor.tokenizer.batch_decode(rows, skip_special_tokens=True),
            language=language,
            prompt=prompt,
        )

    return load_encoder_decoder(loading, kind, writer, ENCODED_AT_ONCE_S)


def _processor(folder: Path) -> Any:
    """transformers' own, whose template writes the prompt.

    Raises:
        ModelError: files are missing.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{folder}: no processor ({reason}); expected processor_config.json and tokenizer.json beside the weights"
        ) from error
    if getattr(processor, "chat_template", None) is None:
        raise ModelError(f"{folder}: nothing says how its prompt is written; expected chat_template.jinja")
    return processor


def _prompt(processor: Any, spoken: str, written: str, punctuation: bool, folder: Path) -> list[int]:
    silence = np.zeros(MODEL_SAMPLE_RATE, np.float32)
    asked = {"source_language": spoken, "target_language": written, "punctuation": punctuation}
    try:
        result = processor.apply_transcription_request(silence, **asked)
    except Exception as error:  # whatever a template does
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: its prompt for {spoken} cannot be written ({reason})") from error
    tokens: list[int] = result["decoder_input_ids"][0].tolist()
    return tokens
