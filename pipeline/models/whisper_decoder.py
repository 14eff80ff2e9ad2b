"""Whisper decoding of a batch, greedy or sampled, on the weights of a Hugging Face model.

Cross-attention keys and values are computed once, self-attention ones live in a preallocated slab, finished
rows leave the batch. All rows stand at the same position, because their prompts are equally long.

B batch, H heads, P decoder positions, F encoder frames, D model width, E width of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor

from pipeline.models.whisper_tokens import TokenRules, WhisperTokens

COMPACT_SHARE = 0.25
"""Finished rows are dropped from the slabs when they make up this share of the batch: copying costs too."""


STOPPED = -1
"""Stands in the result behind a row's last token."""
MAX_LOOP_TOKENS, MAX_LOOPS, MIN_LOOPED_TOKENS = 16, 3, 8
"""A loop: up to 16 tokens that come three times more, and at least 8 tokens repeated."""


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
        watched: (layer, head) pairs whose cross-attention scores are kept.
    """

    def __init__(
        self, model: Any, hidden_BFD: Tensor, max_positions: int, watched: Sequence[tuple[int, int]] = ()
    ) -> None:
        self._watched: dict[int, list[int]] = {}
        for layer, head in watched:
            self._watched.setdefault(layer, []).append(head)
        self._scores: list[Tensor] = []
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
        for number, (layer, cache) in enumerate(zip(self._layers, self._caches, strict=True)):
            x = x + self._self_attention(layer, cache, layer.self_attn_layer_norm(x), start, stop)
            x = x + self._cross_attention(number, layer.encoder_attn, cache, layer.encoder_attn_layer_norm(x))
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

    def watched_scores(self) -> Tensor:
        """Cross-attention scores of the watched heads at the last step, before the softmax: scores_BHNF."""
        found, self._scores = torch.cat(self._scores, dim=1), []
        return found

    def _cross_attention(self, number: int, attention: Any, cache: _LayerCache, x: Tensor) -> Tensor:
        queries = self._heads(attention.q_proj(x))
        if number in self._watched:
            heads = self._watched[number]
            scores = queries[:, heads] @ cache.cross_keys[:, heads].transpose(-1, -2)
            self._scores.append(scores * queries.shape[-1] ** -0.5)
        out = F.scaled_dot_product_attention(queries, cache.cross_keys, cache.cross_values)
        return self._merged(attention, out)

    def _merged(self, attention: Any, out_BHPE: Tensor) -> Tensor:
        merged: Tensor = attention.out_proj(out_BHPE.transpose(1, 2).flatten(2))
        return merged

    def keep(self, rows: Tensor) -> None:
        """Drops finished rows from every slab."""
        for cache in self._caches:
            cache.keep(rows)


@torch.inference_mode()
def detect_languages(
    model: Any, hidden_BFD: Tensor, tokens: WhisperTokens, among: Sequence[str]
) -> list[tuple[int, float]]:
    """Most probable language token of each row, with its probability among the languages (or `among`, if any)."""
    start = torch.full((len(hidden_BFD), 1), tokens.start, device=hidden_BFD.device)
    logits_BV = DecoderState(model, hidden_BFD, 1).step(start)[:, 0].float()
    allowed = [tokens.languages[code] for code in among] or tokens.languages.values()
    ids = torch.tensor(sorted(allowed), device=hidden_BFD.device)
    probability, index = logits_BV[:, ids].softmax(-1).max(-1)
    return list(zip(ids[index].tolist(), probability.tolist(), strict=True))


class Sampler:
    """Chooses tokens at a temperature, with random numbers of each row's own: neighbours do not change them.

    Args:
        temperature: above 0; logits are divided by it.
        seeds: one a row.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def choose(self, logits_BV: Tensor) -> Tensor:
        """The Gumbel maximum of each row is a draw from its softmax."""
        uniform_BV = torch.stack([torch.rand(logits_BV.shape[1], generator=each) for each in self._generators])
        gumbel_BV = -(-uniform_BV.clamp(min=1e-20).log()).log()
        return (logits_BV / self._temperature + gumbel_BV.to(logits_BV.device)).argmax(-1)

    def keep(self, rows: Tensor) -> None:
        """Drops finished rows."""
        self._generators = [self._generators[row] for row in rows.tolist()]


class LoopWatch:
    """Notices rows that repeat themselves, while they do: the same few tokens over and over, timestamps apart.

    Args:
        num_rows: B.
        first_timestamp: tokens from here on are timestamps, all alike to the watch.
        device: of the tokens.
    """

    def __init__(self, num_rows: int, first_timestamp: int, device: torch.device) -> None:
        self._first_timestamp = first_timestamp
        self._latest_BN = torch.full((num_rows, MAX_LOOP_TOKENS), -1, device=device)  # newest last
        self._equal_BN = torch.zeros(num_rows, MAX_LOOP_TOKENS, dtype=torch.long, device=device)
        period_N = torch.arange(MAX_LOOP_TOKENS, 0, -1, device=device)
        self._limit_N = (MAX_LOOPS * period_N).clamp(min=MIN_LOOPED_TOKENS)

    def advance(self, chosen_B: Tensor) -> Tensor:
        """Takes the tokens of a step; returns which rows loop."""
        token_B1 = chosen_B.clamp(max=self._first_timestamp)[:, None]
        self._equal_BN = torch.where(self._latest_BN == token_B1, self._equal_BN + 1, 0)
        self._latest_BN = torch.cat([self._latest_BN[:, 1:], token_B1], dim=1)
        return (self._equal_BN >= self._limit_N).any(-1)

    def keep(self, rows: Tensor) -> None:
        """Drops finished rows."""
        self._latest_BN, self._equal_BN = self._latest_BN[rows], self._equal_BN[rows]


@torch.inference_mode()
def decode_rows(
    model: Any,
    hidden_BFD: Tensor,
    prompts: list[list[int]],
    tokens: WhisperTokens,
    *,
    timestamps: bool,
    max_new_tokens: int,
    sampler: Sampler | None = None,
    stops_loops: bool = False,
) -> list[Decoded]:
    """Token by token under Whisper's rules: the most probable one, or what the sampler chooses.

    Args:
        model: the Hugging Face model.
        hidden_BFD: encoder output.
        prompts: one per row, all of one length; the language may differ.
        tokens: special tokens.
        timestamps: whether timestamp tokens are decoded.
        max_new_tokens: longest answer; a row that reaches it is not `is_finished`.
        sampler: None for the most probable token.
        stops_loops: a row that repeats itself stops and is not `is_finished`.

    Returns:
        One result per row, in order.
    """
    device, num_rows, prompt_length = hidden_BFD.device, len(prompts), len(prompts[0])
    max_new = min(max_new_tokens, model.config.max_target_positions - prompt_length)
    state = DecoderState(model, hidden_BFD, prompt_length + max_new)
    rules = TokenRules(tokens, num_rows, timestamps, device)
    watch = LoopWatch(num_rows, tokens.first_timestamp, device) if stops_loops else None
    logits_BPV = state.step(torch.tensor(prompts, device=device))
    no_speech = logits_BPV[:, prompts[0].index(tokens.start)].float().softmax(-1)[:, tokens.no_speech].tolist()
    logits_BV = logits_BPV[:, -1]
    chosen_NB = torch.full((max_new, num_rows), STOPPED, device=device)
    sum_logprob = torch.zeros(num_rows, dtype=torch.float64, device=device)
    alive = torch.arange(num_rows, device=device)  # rows of the result that the slab rows belong to
    running = torch.ones(num_rows, dtype=torch.bool, device=device)
    for step in range(max_new):
        masked_BV = rules.mask(logits_BV)
        logprobs_BV = masked_BV.log_softmax(-1)
        chosen = logprobs_BV.argmax(-1) if sampler is None else sampler.choose(masked_BV)
        logprobs = logprobs_BV.gather(1, chosen[:, None])[:, 0]
        chosen = torch.where(running, chosen, tokens.end)
        sum_logprob[alive] += torch.where(running, logprobs, 0).double()
        chosen_NB[step, alive] = torch.where(running, chosen, STOPPED)
        rules.advance(chosen)
        running = running & (chosen != tokens.end)
        if watch is not None:
            running = running & ~watch.advance(chosen)
        num_running = int(running.sum())
        if num_running == 0 or step == max_new - 1:
            break
        if num_running <= (1 - COMPACT_SHARE) * len(running):
            rows = running.nonzero()[:, 0]
            _keep(rows, state, rules, watch, sampler)
            alive, chosen, running = alive[rows], chosen[rows], running[rows]
        logits_BV = state.step(chosen[:, None])[:, -1]
    return _results(chosen_NB, sum_logprob, no_speech, tokens.end)


def _keep(rows: Tensor, *holders: DecoderState | TokenRules | LoopWatch | Sampler | None) -> None:
    for holder in holders:
        if holder is not None:
            holder.keep(rows)


def _results(chosen_NB: Tensor, sum_logprob: Tensor, no_speech: list[float], end: int) -> list[Decoded]:
    rows = []
    for ids, logprob, silence in zip(chosen_NB.T.tolist(), sum_logprob.tolist(), no_speech, strict=True):
        is_finished = end in ids
        tokens = [token for token in ids if token not in (STOPPED, end)]
        rows.append(Decoded(tokens, logprob, len(tokens) + is_finished, silence, is_finished))
    return rows
