"""The KV cache (`kv_cache`) of a decoder: rows that each stand at a position of their own.

Cross-attention keys and values are computed once for the rows of an encoder batch and stay together in a group, because
they have equally many frames; self-attention ones live in slabs with a slot a row. Everything but cross-attention runs
over all rows at once.

B rows, H heads, P decoder positions, F encoder frames, D model width, E width of a head, L tokens fed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor

from audiomill.models.seq2seq.cross_attention_cache import CrossKV, DynamicCrossCache, NoCrossCache, StaticCrossCache
from audiomill.models.seq2seq.decoder_weights import CrossAttention, DecoderWeights

_BLOCK = 32
"""Positions of the decoder are attended to in whole blocks."""


def _attention(
    q_BHLE: Tensor, k_BHPE: Tensor, v_BHPE: Tensor, seen: Tensor | None, scale: float | None = None
) -> Tensor:
    """Scaled dot products. On CPU in steps whose sums do not depend on the number of rows, unlike the fused kernel's."""
    if q_BHLE.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHLE, k_BHPE, v_BHPE, attn_mask=seen, scale=scale)
    q_BHLE = q_BHLE * (scale or q_BHLE.shape[-1] ** -0.5)
    if seen is None and q_BHLE.shape[-2] == 1:
        # One query costs what reading costs, and matrix times vector reads in order (values: see `cross_kv`).
        scores_BHLP = (k_BHPE @ q_BHLE.transpose(-1, -2)).transpose(-1, -2)
        return (v_BHPE.transpose(-1, -2) @ scores_BHLP.softmax(-1).transpose(-1, -2)).transpose(-1, -2)
    scores_BHLP = q_BHLE @ k_BHPE.transpose(-1, -2)
    if seen is not None:
        scores_BHLP = scores_BHLP.masked_fill_(~seen, -torch.inf)
    out_BHLE: Tensor = scores_BHLP.softmax(-1) @ v_BHPE
    return out_BHLE


class KVCache:
    """Slots for rows of the decoder.

    Args:
        weights: the decoder's.
        capacity: most rows at a time.
        max_positions: longest sequence of a row, prompt included.
        watched: (layer, head) pairs whose cross-attention scores are kept.
        fan: rows that look at the same audio (beams).
        cross: where cross-attention keys and values are kept; by default in groups, where there are any.
    """

    def __init__(
        self,
        weights: DecoderWeights,
        capacity: int,
        max_positions: int,
        watched: Sequence[tuple[int, int]] = (),
        fan: int = 1,
        cross: DynamicCrossCache | StaticCrossCache | NoCrossCache | None = None,
    ) -> None:
        self._weights, self._fan, self._max_positions = weights, fan, max_positions
        shape = (capacity, weights.num_key_heads, max_positions, weights.size_of_head)
        # Zeros, because what a mask hides must still be a number.
        self._keys, self._values = [[weights.zeros(*shape) for _ in weights.layers] for _ in range(2)]
        self._cross = cross or (DynamicCrossCache() if weights.has_cross_attention else NoCrossCache())
        self._positions_B = torch.zeros(capacity, dtype=torch.long, device=weights.device)
        self._slots_B = torch.arange(capacity, device=weights.device)
        self._at = np.zeros(0, np.int64)  # the same positions, known here
        self._watched: dict[int, list[int]] = {}
        for layer, head in watched:
            self._watched.setdefault(layer, []).append(head)
        self._scores: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._at)

    def admit(self, group: CrossKV, tokens_BL: Tensor) -> Tensor:
        """Puts new rows behind those that are there and feeds them their first tokens; hidden_BLD, not yet normed."""
        places_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
        hidden = self._admit(self._weights.embed(tokens_BL, places_L), places_L, [group])
        self._cross.add(group)
        return hidden

    def admit_prefixes(self, prefix_BLD: Tensor) -> Tensor:
        """The same for rows that begin with numbers in place of tokens."""
        return self._admit(prefix_BLD, torch.arange(prefix_BLD.shape[1], device=prefix_BLD.device), [])

    def _admit(self, x_BLD: Tensor, places_L: Tensor, groups: Sequence[CrossKV]) -> Tensor:
        first, (batch, length, _) = len(self), x_BLD.shape
        rows = slice(first, first + batch)

        def attend(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self._keys[number][rows, :, :length], self._values[number][rows, :, :length] = k, v
            shared = self._weights.gqa_group_size
            if shared > 1:
                k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
            return _attention(q, k, v, causal_LL, self._weights.scale)

        ones_LL = torch.ones(length, length, dtype=torch.bool, device=x_BLD.device)
        causal_LL = ones_LL.tril() if length > 1 else None
        hidden = self._through(x_BLD, places_L, attend, groups)
        self._positions_B[rows] = length
        self._at = np.concatenate([self._at, np.full(batch, length)])
        return hidden

    @property
    def frames(self) -> int | None:
        """Frames that rows must have to be admitted now; None for any."""
        return self._cross.frames

    def kept_order(self, rows: Sequence[int]) -> list[int]:
        """Some rows, in the order in which they move together with least effort."""
        return self._cross.kept_order(rows)

    @property
    def longest(self) -> int:
        """Positions that the next step attends to: whole blocks, so that a row's sums have the same order beside longer
        ones, and steps the same shapes for a while."""
        return min(self._max_positions, -(-(int(self._at.max()) + 1) // _BLOCK) * _BLOCK)

    def step(self, tokens_B: Tensor) -> Tensor:
        """Feeds every row its next token; hidden_B1D, not yet normed."""
        hidden = self.compute(tokens_B, self.longest)
        self.count_step()
        return hidden

    def count_step(self) -> None:
        """Takes note here that every row was fed a token on the device."""
        self._at = np.minimum(self._at + 1, self._max_positions - 1)

    def compute(self, tokens_B: Tensor, longest: int) -> Tensor:
        """A step on the device alone: nothing in it but tensors of fixed shape. Slots without a row may be fed too."""
        width = len(tokens_B)
        groups = self._cross.groups(width)
        positions_B, slots_B = self._positions_B[:width], self._slots_B[:width]
        places = torch.arange(longest, device=tokens_B.device)
        seen_B11P = (places <= positions_B[:, None])[:, None, None]

        def attend(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._keys[number], self._values[number]
            keys[slots_B, :, positions_B], values[slots_B, :, positions_B] = k[:, :, 0], v[:, :, 0]
            # Heads that share keys and values are queries of one head.
            grouped = q.view(width, keys.shape[1], -1, q.shape[-1])
            result = _attention(
                grouped, keys[:width, :, :longest], values[:width, :, :longest], seen_B11P, self._weights.scale
            )
            return result.view(q.shape)

        tokens_B1, places_B1 = tokens_B[:, None], positions_B[:, None]
        hidden = self._through(self._weights.embed(tokens_B1, places_B1), places_B1, attend, groups)
        positions_B.add_(1).clamp_(max=self._max_positions - 1)  # rows that are done may step on beside the others
        return hidden

    def _through(
        self,
        x_BLD: Tensor,
        places: Tensor,
        attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
        groups: Sequence[CrossKV],
    ) -> Tensor:
        batch, length, _ = x_BLD.shape
        weights = self._weights
        heads = (batch, length, weights.num_heads + 2 * weights.num_key_heads, weights.size_of_head)
        counts = [weights.num_heads, weights.num_key_heads, weights.num_key_heads]
        x = x_BLD
        for number, layer in enumerate(weights.layers):
            together_BHLE = layer.qkv(layer.attention_norm(x)).view(heads).transpose(1, 2)
            q, k, v = (each.contiguous() for each in torch.split(together_BHLE, counts, dim=1))
            if layer.apply_rotary is not None:
                q, k = layer.apply_rotary(q, k, places)
            x = x + layer.out(attend(number, q, k, v).transpose(1, 2).reshape(batch, length, -1))
            if layer.cross is not None:
                x = x + self._cross_attention(number, layer.cross, layer.cross.norm(x), groups)
            x = x + layer.feed_forward(layer.norm(x))
        return x

    def _cross_attention(self, number: int, cross: CrossAttention, x_BLD: Tensor, groups: Sequence[CrossKV]) -> Tensor:
        batch, length, width = x_BLD.shape
        num_heads, fan = self._weights.num_heads, self._fan
        # Rows that look at the same audio are queries of one row.
        q = cross.q(x_BLD).view(batch // fan, fan * length, num_heads, -1).transpose(1, 2)
        if number in self._watched:
            (group,), watched = groups, self._watched[number]
            scores = q[:, watched] @ group.keys[number][:, watched].transpose(-1, -2)
            self._scores.append(scores * q.shape[-1] ** -0.5)
        result, at = [], 0
        for group in groups:
            rows = q[at : at + len(group)]
            result.append(_attention(rows, group.keys[number], group.values[number], None))
            at += len(group)
        out_BHLE = result[0] if len(result) == 1 else torch.cat(result)
        return cross.out(out_BHLE.transpose(1, 2).reshape(batch, length, width))

    def watched_scores(self) -> Tensor:
        """Cross-attention scores of the watched heads since the last call, before the softmax: scores_BHLF."""
        result, self._scores = torch.cat(self._scores, dim=1), []
        return result

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all rows but these, an order that `kept_order` gave."""
        self._cross.keep(rows)
        self._move(torch.tensor(rows, dtype=torch.long, device=self._positions_B.device))
        self._at = self._at[list(rows)]

    def reorder(self, rows: Tensor) -> None:
        """Row n goes on from what row `rows[n]` remembers; both look at the same audio and are equally far."""
        self._move(rows)

    def _move(self, rows: Tensor) -> None:
        longest = int(self._at.max())
        for slab in (*self._keys, *self._values):
            slab[: len(rows), :, :longest] = slab[rows, :, :longest]
        self._positions_B[: len(rows)] = self._positions_B[rows]
