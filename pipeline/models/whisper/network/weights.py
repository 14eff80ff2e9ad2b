"""Whisper's weights as plain functions in the precision of a run, taken from a Hugging Face model.

B batch, L positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiomill.config.defaults import INT8_BF16, INT8_WEIGHT7
from audiomill.models.precision import is_int8
from audiomill.models.projection import Projection, fused, projection, smoothed

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class EncoderLayer:
    """`qkv`: queries, keys and values side by side."""

    attention_norm: Function
    qkv: Projection
    out: Projection
    norm: Function
    fc1: Projection
    fc2: Projection


@dataclass(frozen=True)
class DecoderLayer(EncoderLayer):
    """As in the encoder, with cross-attention between."""

    cross_norm: Function
    cross_q: Projection
    cross_kv: Projection
    cross_out: Projection


@dataclass(frozen=True)
class EncoderWeights:
    """`conv1`, `conv2`: products over three frames side by side; `dtype`: of the activations."""

    conv1: Projection
    conv2: Projection
    positions_FD: Tensor
    layers: Sequence[EncoderLayer]
    norm: Function
    num_heads: int
    has_half_attention: bool
    dtype: torch.dtype


@dataclass(frozen=True)
class DecoderWeights:
    """`vocabulary`: from the last hidden state to logits."""

    tokens_VD: Tensor
    positions_PD: Tensor
    layers: Sequence[DecoderLayer]
    norm: Function
    vocabulary: Projection
    num_heads: int

    @property
    def max_positions(self) -> int:
        return len(self.positions_PD)

    @property
    def device(self) -> torch.device:
        return self.tokens_VD.device

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """logits_BLV, float32."""
        return self.vocabulary(self.norm(hidden_BLD)).float()


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


def decoder_weights(model: Any, precision: str) -> DecoderWeights:
    """Of a `WhisperForConditionalGeneration`.

    On CPU the decoder has no bf16: its sums depend on how many rows a product has (the encoder's rows go alone).
    """
    decoder = model.model.decoder
    if precision == "bf16" and _is_on_cpu(model):
        precision = "fp32"
    norm, vocabulary_VD = decoder.layer_norm, model.proj_out.weight
    if is_int8(precision):
        norm, vocabulary_VD = smoothed(norm, vocabulary_VD)
    return DecoderWeights(
        tokens_VD=decoder.embed_tokens.weight.detach(),
        positions_PD=decoder.embed_positions.weight.detach(),
        layers=[_decoder_layer(layer, precision) for layer in decoder.layers],
        norm=norm,
        vocabulary=projection(vocabulary_VD, None, precision),
        num_heads=model.config.decoder_attention_heads,
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
    return DecoderLayer(
        **_common(layer, finer, finer),
        cross_norm=layer.encoder_attn_layer_norm,
        cross_q=fused([cross.q_proj], finer),
        cross_kv=fused([cross.k_proj, cross.v_proj], precision),
        cross_out=fused([cross.out_proj], finer),
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
