"""A decoder's weights as plain functions, whatever the family that they come from.

B batch, L positions, D width, V vocabulary, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiomill.config.defaults import INT8_WEIGHT7
from audiomill.errors import ModelError
from audiomill.models.matrix_products import fused
from audiomill.models.seq2seq.special_tokens import SpecialTokens

Function = Callable[[Tensor], Tensor]
ApplyRotary = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Queries and keys (B, heads, L, E) and their positions, (L) or (B, 1) -> both as they meet, turned by their positions."""


@dataclass(frozen=True)
class CrossAttention:
    """What looks at an encoder's output. `kv`: keys and values side by side."""

    norm: Function
    q: Function
    kv: Function
    out: Function


@dataclass(frozen=True)
class DecoderLayer:
    """`qkv`: queries, keys and values side by side; `cross`: None where the audio stands in front of the text;
    `feed_forward` stands behind `norm`; `apply_rotary`: where queries and keys, not the tokens, know their positions."""

    attention_norm: Function
    qkv: Function
    out: Function
    norm: Function
    feed_forward: Function
    cross: CrossAttention | None = None
    apply_rotary: ApplyRotary | None = None


@dataclass(frozen=True)
class DecoderWeights:
    """A decoder.

    Attributes:
        embed: tokens and their positions, (B, L) and (L), or (B, 1) both -> hidden_BLD.
        layers: in order.
        norm: behind the last one.
        vocabulary: from there to logits.
        num_heads: H, of queries.
        width: D.
        max_positions: longest sequence, prompt included.
        device: of everything.
        dtype: of what is remembered.
        gqa_group_size: queries that share one head of keys and values.
        head_width: E; by default D / H.
        scale: of the dot products; by default 1 / sqrt(E).
    """

    embed: Callable[[Tensor, Tensor], Tensor]
    layers: Sequence[DecoderLayer]
    norm: Function
    vocabulary: Function
    num_heads: int
    width: int
    max_positions: int
    device: torch.device
    dtype: torch.dtype
    gqa_group_size: int = 1
    head_width: int | None = None
    scale: float | None = None

    @property
    def size_of_head(self) -> int:
        """E."""
        return self.head_width or self.width // self.num_heads

    @property
    def has_cross_attention(self) -> bool:
        """Whether it looks at an encoder's output; else the audio stands in front of the text."""
        return self.layers[0].cross is not None

    @property
    def num_key_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads // self.gqa_group_size

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """logits_BLV, float32."""
        return self.vocabulary(self.norm(hidden_BLD)).float()

    def zeros(self, *shape: int) -> Tensor:
        """Memory for what is remembered."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


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
