"""A decoder's weights as plain functions, whatever the family that they come from.

B batch, L positions, D width, V vocabulary, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
