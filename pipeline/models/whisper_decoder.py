"""Greedy Whisper decoding of a batch, on the weights of a Hugging Face model.

Cross-attention keys and values are computed once, self-attention ones live in a preallocated slab, finished
rows leave the batch. All rows stand at the same position, because their prompts are equally long.

B batch, H heads, P decoder positions, F encoder frames, D model width, E width of a head, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor

from pipeline.models.whisper_tokens import TokenRules, WhisperTokens

COMPACT_SHARE = 0.25
"""Finished rows are dropped from the slabs when they make up this share of the batch: copying costs too."""


class Decoded(NamedTuple):
    """One row: text and timestamp tokens without prompt and end, and what Whisper reports of them.

    `sum_logprob` is over `num_chosen` tokens, the end included. `is_finished`: the end was reached.
    """

    tokens: list[int]
    sum_logprob: float
    num_chosen: int
    no_speech_prob: float
    is_finished: bool


@dataclass
class _LayerCache:
    """Keys and values of one layer: self-attention slabs (B, H, P, E), cross-attention (B, H, F, E)."""

    keys: Tensor
    values: Tensor
    cross_keys: Tensor
    cross_values: Tensor

    def keep(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]
        self.cross_keys, self.cross_values = self.cross_keys[rows], self.cross_values[rows]


class DecoderState:
    """The decoder of a `WhisperForConditionalGeneration` with its caches for one batch.

    Args:
        model: the Hugging Face model.
        hidden_BFD: encoder output.
        max_positions: longest sequence that will be decoded, prompt included.
    """

    def __init__(self, model: Any, hidden_BFD: Tensor, max_positions: int) -> None:
        self._model, decoder = model, model.model.decoder
        self._layers = list(decoder.layers)
        self._num_heads = model.config.decoder_attention_heads
        self._position = 0
        self._caches = [self._new_cache(layer, hidden_BFD, max_positions) for layer in self._layers]

    def _new_cache(self, layer: Any, hidden_BFD: Tensor, max_positions: int) -> _LayerCache:
        batch, _, width = hidden_BFD.shape
        shape = (batch, self._num_heads, max_positions, width // self._num_heads)
        attention = layer.encoder_attn
        return _LayerCache(
            hidden_BFD.new_empty(shape),
            hidden_BFD.new_empty(shape),
            self._heads(attention.k_proj(hidden_BFD)).contiguous(),
            self._heads(attention.v_proj(hidden_BFD)).contiguous(),
        )

    def _heads(self, x_BPD: Tensor) -> Tensor:
        batch, length, width = x_BPD.shape
        return x_BPD.view(batch, length, self._num_heads, width // self._num_heads).transpose(1, 2)

    def step(self, tokens_BP: Tensor) -> Tensor:
        """Feeds the next tokens; returns logits_BPV."""
        decoder = self._model.model.decoder
        length = tokens_BP.shape[1]
        start, stop = self._position, self._position + length
        x = decoder.embed_tokens(tokens_BP) + decoder.embed_positions.weight[start:stop]
        for layer, cache in zip(self._layers, self._caches, strict=True):
            x = x + self._self_attention(layer, cache, layer.self_attn_layer_norm(x), start, stop)
            x = x + self._cross_attention(layer.encoder_attn, cache, layer.encoder_attn_layer_norm(x))
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        self._position = stop
        logits: Tensor = self._model.proj_out(decoder.layer_norm(x))
        return logits

    def _self_attention(self, layer: Any, cache: _LayerCache, x: Tensor, start: int, stop: int) -> Tensor:
        attention = layer.self_attn
        cache.keys[:, :, start:stop] = self._heads(attention.k_proj(x))
        cache.values[:, :, start:stop] = self._heads(attention.v_proj(x))
        keys, values = cache.keys[:, :, :stop], cache.values[:, :, :stop]
        is_causal = stop - start > 1  # the prompt is fed at once, and only at position 0
        out = F.scaled_dot_product_attention(self._heads(attention.q_proj(x)), keys, values, is_causal=is_causal)
        return self._merged(attention, out)

    def _cross_attention(self, attention: Any, cache: _LayerCache, x: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(self._heads(attention.q_proj(x)), cache.cross_keys, cache.cross_values)
        return self._merged(attention, out)

    def _merged(self, attention: Any, out_BHPE: Tensor) -> Tensor:
        merged: Tensor = attention.out_proj(out_BHPE.transpose(1, 2).flatten(2))
        return merged

    def keep(self, rows: Tensor) -> None:
        """Drops finished rows from every slab."""
        for cache in self._caches:
            cache.keep(rows)


@torch.inference_mode()
def detect_languages(model: Any, hidden_BFD: Tensor, tokens: WhisperTokens) -> list[tuple[int, float]]:
    """Most probable language token of each row, with its probability among the languages."""
    start = torch.full((len(hidden_BFD), 1), tokens.start, device=hidden_BFD.device)
    logits_BV = DecoderState(model, hidden_BFD, 1).step(start)[:, 0].float()
    ids = torch.tensor(sorted(tokens.languages.values()), device=hidden_BFD.device)
    probability, index = logits_BV[:, ids].softmax(-1).max(-1)
    return list(zip(ids[index].tolist(), probability.tolist(), strict=True))


@torch.inference_mode()
def decode_greedily(
    model: Any,
    hidden_BFD: Tensor,
    prompts: list[list[int]],
    tokens: WhisperTokens,
    *,
    timestamps: bool,
    max_new_tokens: int,
) -> list[Decoded]:
    """Most probable token at each step, under Whisper's rules.

    Args:
        model: the Hugging Face model.
        hidden_BFD: encoder output.
        prompts: one per row, all of one length; the language may differ.
        tokens: special tokens.
        timestamps: whether timestamp tokens are decoded.
        max_new_tokens: longest answer; a row that reaches it is not `is_finished`.

    Returns:
        One result per row, in order.
    """
    device, num_rows, prompt_length = hidden_BFD.device, len(prompts), len(prompts[0])
    max_new = min(max_new_tokens, model.config.max_target_positions - prompt_length)
    state = DecoderState(model, hidden_BFD, prompt_length + max_new)
    rules = TokenRules(tokens, num_rows, timestamps, device)
    logits_BPV = state.step(torch.tensor(prompts, device=device))
    no_speech = logits_BPV[:, 0].float().softmax(-1)[:, tokens.no_speech].tolist()
    logits_BV = logits_BPV[:, -1]
    chosen_NB = torch.full((max_new, num_rows), tokens.end, device=device)
    sum_logprob = torch.zeros(num_rows, dtype=torch.float64, device=device)
    alive = torch.arange(num_rows, device=device)  # rows of the result that the slab rows belong to
    running = torch.ones(num_rows, dtype=torch.bool, device=device)
    for step in range(max_new):
        logprobs, chosen = rules.mask(logits_BV).log_softmax(-1).max(-1)
        chosen = torch.where(running, chosen, tokens.end)
        sum_logprob[alive] += torch.where(running, logprobs, 0).double()
        chosen_NB[step, alive] = chosen
        rules.advance(chosen)
        running = running & (chosen != tokens.end)
        num_running = int(running.sum())
        if num_running == 0 or step == max_new - 1:
            break
        if num_running <= (1 - COMPACT_SHARE) * len(running):
            rows = running.nonzero()[:, 0]
            state.keep(rows)
            rules.keep(rows)
            alive, chosen, running = alive[rows], chosen[rows], running[rows]
        logits_BV = state.step(chosen[:, None])[:, -1]
    return _results(chosen_NB, sum_logprob, no_speech, tokens.end)


def _results(chosen_NB: Tensor, sum_logprob: Tensor, no_speech: list[float], end: int) -> list[Decoded]:
    rows = []
    for ids, logprob, silence in zip(chosen_NB.T.tolist(), sum_logprob.tolist(), no_speech, strict=True):
        is_finished = end in ids
        tokens = ids[: ids.index(end)] if is_finished else ids
        rows.append(Decoded(tokens, logprob, len(tokens) + is_finished, silence, is_finished))
    return rows
