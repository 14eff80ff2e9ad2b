"""A decoder's weights as plain functions, whatever the family that they come from.

B batch, L positions, D width, V vocabulary, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Turn = Callable[[Tensor, Tensor], Tensor]
"""Turns queries or keys (B, H, L, E) by their positions, (L) or (B, 1)."""


@dataclass(frozen=True)
class DecoderLayer:
    """`qkv`: queries, keys and values side by side; `cross_kv`: keys and values; `feed_forward` stands behind `norm`."""

    attention_norm: Function
    qkv: Function
    out: Function
    cross_norm: Function
    cross_q: Function
    cross_kv: Function
    cross_out: Function
    norm: Function
    feed_forward: Function


@dataclass(frozen=True)
class DecoderWeights:
    """A decoder.

    Attributes:
        embed: tokens and their positions, (B, L) and (L), or (B, 1) both -> hidden_BLD.
        layers: in order.
        norm: behind the last one.
        vocabulary: from there to logits.
        num_heads: H.
        width: D.
        max_positions: longest sequence, prompt included.
        device: of everything.
        dtype: of what is remembered.
        turn: of queries and keys, where they and not the tokens know their positions.
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
    turn: Turn | None = None

    def logits(self, hidden_BLD: Tensor) -> Tensor:
        """logits_BLV, float32."""
        return self.vocabulary(self.norm(hidden_BLD)).float()

    def zeros(self, *shape: int) -> Tensor:
        """Memory for what is remembered."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)
