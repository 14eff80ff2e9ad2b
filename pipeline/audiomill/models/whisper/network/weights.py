"""Whisper's weights as plain functions in the precision of a run, taken from a Hugging Face model.

B batch, L positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor

from audiomill.config.defaults import INT8_BF16, INT8_WEIGHT7
from audiomill.models.matrix_products import Projection, fused, projection, smooth_quant
from audiomill.models.precision import is_int8
from audiomill.models.seq2seq.decoder_weights import CrossAttention, DecoderLayer, DecoderWeights

_Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class EncoderLayer:
    """`qkv`: queries, keys and values side by side."""

    attention_norm: _Function
    qkv: Projection
    out: Projection
    norm: _Function
    fc1: Projection
    fc2: Projection


@dataclass(frozen=True)
class EncoderWeights:
    """`conv1`, `conv2`: products over three frames side by side; `dtype`: of the activations."""

    conv1: Projection
    conv2: Projection
    positions_FD: Tensor
    layers: Sequence[EncoderLayer]
    norm: _Function
    num_heads: int
    has_half_attention: bool
    dtype: torch.dtype


def encoder_weights(encoder: Any, precision: str) -> EncoderWeights:
    """Of a `WhisperEncoder`; at float precisions the layers share its memory where nothing is fused."""
    return EncoderWeights(
        conv1=_conv(encoder.conv1, "fp32" if is_int8(precision) else precision),
        conv2=_conv(encoder.conv2, precision),
        positions_FD=encoder.embed_positions.weight.detach(),
        layers=[EncoderLayer(**_common(layer, precision, _finer(precision))) for layer in encoder.layers],
        norm=encoder.layer_norm,
        num_heads=encoder.config.encoder_attention_heads,
        has_half_attention=_is_on_cpu(encoder) and precision in (INT8_BF16, "bf16"),
        dtype=encoder.embed_positions.weight.dtype,
    )


def whisper_decoder(model: Any, precision: str) -> DecoderWeights:
    """Of a `WhisperForConditionalGeneration`.

    On CPU the decoder has no bf16: its sums depend on how many rows a product has (the encoder's rows go alone).
    """
    decoder = model.model.decoder
    if precision == "bf16" and _is_on_cpu(model):
        precision = "fp32"
    norm, vocabulary_VD = decoder.layer_norm, model.proj_out.weight
    if is_int8(precision):
        norm, vocabulary_VD = smooth_quant(norm, vocabulary_VD)
    tokens_VD, positions_PD = decoder.embed_tokens.weight.detach(), decoder.embed_positions.weight.detach()
    return DecoderWeights(
        embed=lambda tokens, places: tokens_VD[tokens] + positions_PD[places],
        layers=[_decoder_layer(layer, precision) for layer in decoder.layers],
        norm=norm,
        vocabulary=projection(vocabulary_VD, None, precision),
        num_heads=model.config.decoder_attention_heads,
        width=tokens_VD.shape[1],
        max_positions=len(positions_PD),
        device=tokens_VD.device,
        dtype=tokens_VD.dtype,
    )


def _common(layer: Any, precision: str, finer: str) -> dict[str, Any]:
    """What layers of both sides have. `finer`: of the product behind attention."""
    attention = layer.self_attn
    return {
        "attention_norm": layer.self_attn_layer_norm,
        "qkv": fused([attention.q_proj, attention.k_proj, attention.v_proj], precision),
        "out": fused([attention.out_proj], finer),
        "norm": layer.final_layer_norm,
        "fc1": fused([layer.fc1], precision),
        "fc2": fused([layer.fc2], precision),
    }


def _decoder_layer(layer: Any, precision: str) -> DecoderLayer:
    cross, finer = layer.encoder_attn, _finer(precision)
    common = _common(layer, finer, finer)
    fc1, fc2 = common.pop("fc1"), common.pop("fc2")
    return DecoderLayer(
        **common,
        feed_forward=lambda x_BLD: fc2(F.gelu(fc1(x_BLD))),
        cross=CrossAttention(
            norm=layer.encoder_attn_layer_norm,
            q=fused([cross.q_proj], finer),
            kv=fused([cross.k_proj, cross.v_proj], precision),
            out=fused([cross.out_proj], finer),
        ),
    )


def _finer(precision: str) -> str:
    """Of the decoder's steps, and behind attention: where products are small, weights of 7 bits cost words and gain little
    (`benchmarks/int8_products.py`)."""
    return "fp32" if precision == INT8_WEIGHT7 else precision


def _conv(conv: Any, precision: str) -> Projection:
    """A convolution over three frames as a product: weight_NMK -> weight_N(KM)."""
    return projection(conv.weight.permute(0, 2, 1).flatten(1), conv.bias, precision)


def _is_on_cpu(module: Any) -> bool:
    return bool(next(module.parameters()).device.type == "cpu")
