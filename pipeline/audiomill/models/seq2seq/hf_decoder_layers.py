"""Decoders of transformers whose layers are named alike -> `DecoderLayer`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from audiomill.config.defaults import INT8_WEIGHT7
from audiomill.errors import ModelError
from audiomill.models.projection import fused
from audiomill.models.seq2seq.decoder_weights import ApplyRotary, CrossAttention, DecoderLayer, Function
from audiomill.models.seq2seq.special_tokens import SpecialTokens

FeedForward = Callable[[Any, str], Function]
"""An `mlp` of transformers and a number format -> the same as a function."""


def step_precision(precision: str, device: torch.device) -> str:
    """Of a decoder's steps. On a CPU sums in bf16 depend on how many rows a product has; 7 bits cost words there and gain
    little."""
    is_coarse = precision == INT8_WEIGHT7 or (precision == "bf16" and device.type == "cpu")
    return "fp32" if is_coarse else precision


def decoder_layer(
    layer: Any, precision: str, feed_forward: FeedForward, apply_rotary: ApplyRotary | None = None
) -> DecoderLayer:
    """Of a layer with `self_attn`, `encoder_attn` and `mlp`, as Moonshine and Canary have them."""
    self_attention, cross = layer.self_attn, layer.encoder_attn
    return DecoderLayer(
        attention_norm=layer.input_layernorm,
        qkv=fused([self_attention.q_proj, self_attention.k_proj, self_attention.v_proj], precision),
        out=fused([self_attention.o_proj], precision),
        norm=layer.final_layernorm,
        feed_forward=feed_forward(layer.mlp, precision),
        cross=CrossAttention(
            norm=layer.post_attention_layernorm,
            q=fused([cross.q_proj], precision),
            kv=fused([cross.k_proj, cross.v_proj], precision),
            out=fused([cross.o_proj], precision),
        ),
        apply_rotary=apply_rotary,
    )


def num_heads(config: Any, folder: Path) -> int:
    """Of a decoder.

    Raises:
        ModelError: its heads share keys and values, or are wider or narrower than the model divided by their number.
    """
    heads, width = config.num_attention_heads, config.hidden_size
    shared = config.num_key_value_heads != heads
    if shared or getattr(config, "head_dim", None) not in (None, width // heads) or width % heads:
        raise ModelError(
            f"{folder}: a decoder of {heads} heads with {config.num_key_value_heads} for keys in a width of {width} is not known here; "
            "expected as many heads for keys, that share the width"
        )
    return int(heads)


def special_tokens(model: Any, start: int, size: int) -> SpecialTokens:
    """Of a model that writes neither timestamps nor that nobody speaks; suppressed ones by its generation config."""
    generation, end = model.generation_config, model.config.eos_token_id
    return SpecialTokens(
        size=size,
        start=start,
        end=end[0] if isinstance(end, list) else end,
        no_speech=None,
        first_timestamp=size,
        suppress=tuple(generation.suppress_tokens or ()),
        begin_suppress=tuple(generation.begin_suppress_tokens or ()),
    )


def tokenizer_in(folder: Path) -> Any:
    """transformers' own.

    Raises:
        ModelError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: no tokenizer ({reason}); expected tokenizer.json beside the weights") from error
