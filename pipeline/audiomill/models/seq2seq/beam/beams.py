"""Beam search, where it is asked for.

B rows, K beams, V vocabulary. Hypotheses are ranked by mean log-probability, and the search ends as in Hugging Face's
`generate` with `length_penalty=1`, which is the oracle; with a language model beside it they are ranked by their sums, in
which each word has a bonus.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from audiomill.models.ctc.context import Prefix
from audiomill.models.seq2seq.beam.fusion import Coverage, Fusion, with_ends_ruled
from audiomill.models.seq2seq.cross_attention_cache import CrossKV
from audiomill.models.seq2seq.decode_slots import DecodedTokens, Search, prefill
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.kv_cache import KVCache
from audiomill.models.seq2seq.token_rules import TokenRules
from audiomill.models.watchdog import heartbeat

History = list[tuple[int, float]]
"""Tokens of a beam, each with the sum of the decoder's log-probabilities up to it."""


class Ranked(NamedTuple):
    """A text of a row. `score`: what it was ranked by; `lm`, `num_words`: of its words, see `Fusion`."""

    decoded: DecodedTokens
    score: float
    lm: float
    num_words: int


class _Beam(NamedTuple):
    """`total`: with what the fusion adds."""

    history: History
    total: float
    prefix: Prefix | None

    @property
    def sum_logprob(self) -> float:
        return self.history[-1][1] if self.history else 0.0


class _Hypothesis(NamedTuple):
    history: History
    sum_logprob: float
    total: float
    prefix: Prefix | None
    is_finished: bool

    @property
    def score(self) -> float:
        if self.prefix is not None:
            return self.total
        return self.total / max(1, len(self.history) + self.is_finished)


@torch.inference_mode()
def decode_with_beams(
    weights: DecoderWeights,
    begins: CrossKV | Tensor,
    prompts: list[list[int]],
    search: Search,
    num_beams: int,
    fusion: Fusion | None = None,
) -> list[list[Ranked]]:
    """The best hypotheses of each row, best first: one, or as many as the fusion wants.

    Args:
        weights: the decoder's.
        begins, prompts: see `DecodeRequest`.
        search: tokens, timestamps and the longest answer.
        num_beams: K.
        fusion: what a text is worth besides.
    """
    most = 1 if fusion is None else fusion.num_searched or num_beams
    fusion = fusion if fusion is not None and fusion.steers else None
    prompt_length = begins.shape[1] if isinstance(begins, Tensor) else len(prompts[0])
    tokens = search.tokens
    max_new = min(search.max_new_tokens, weights.max_positions - prompt_length)
    coverage = _coverage(fusion, weights, len(prompts), num_beams)
    state = KVCache(
        weights,
        len(prompts) * num_beams,
        prompt_length + max_new,
        () if coverage is None else [(len(weights.layers) - 1, head) for head in range(weights.num_heads)],
        fan=num_beams,
    )
    rules = TokenRules(tokens, len(prompts) * num_beams, search.timestamps, weights.device)
    logits, no_speech = prefill(weights, state, begins, prompts, tokens, fan=num_beams)
    running = _Running(len(prompts), num_beams, tokens.end, fusion, weights.device)
    rows = slice(0, len(prompts) * num_beams)
    for _ in range(max_new):
        heartbeat()
        logprobs_BKV = rules.mask(logits, rows).log_softmax(-1).double().view(len(prompts), num_beams, -1)
        looked_BK = None if coverage is None else coverage.looked(state.watched_scores())
        parents_BK, tokens_BK = running.advance(logprobs_BKV, looked_BK)
        if running.is_done:
            break
        order = (torch.arange(len(prompts), device=weights.device)[:, None] * num_beams + parents_BK).flatten()
        state.reorder(order)
        if coverage is not None:
            coverage.reorder(parents_BK)
        rules.move(order)
        rules.advance(tokens_BK.flatten(), rows)
        logits = weights.logits(state.step(tokens_BK.flatten()))[:, 0]
    return [_ranked(result, silence, most, fusion) for result, silence in zip(running.best(), no_speech, strict=True)]


def _coverage(fusion: Fusion | None, weights: DecoderWeights, num_rows: int, num_beams: int) -> Coverage | None:
    return (
        Coverage(num_rows, num_beams)
        if fusion is not None and fusion.coverage_score and weights.has_cross_attention
        else None
    )


class _Running:
    """The beams of all rows, and what has ended of each row."""

    def __init__(self, num_rows: int, num_beams: int, end: int, fusion: Fusion | None, device: torch.device) -> None:
        self._end, self._fusion, self._device = end, fusion, device
        # All beams of a row are the same at first: only one may go on.
        first = [0.0, *([-math.inf] * (num_beams - 1))]
        empty = None if fusion is None else fusion.empty
        self._beams = [[_Beam([], total, empty) for total in first] for _ in range(num_rows)]
        self._finished: list[list[_Hypothesis]] = [[] for _ in range(num_rows)]
        self._done = [False] * num_rows  # what runs on only for its neighbours' sake changes no more

    @property
    def is_done(self) -> bool:
        return all(self._done)

    def advance(self, logprobs_BKV: Tensor, looked_BK: Tensor | None) -> tuple[Tensor, Tensor]:
        """One token further: the beam that each beam goes on from, and its token, both (B, K)."""
        num_beams, num_tokens = logprobs_BKV.shape[1:]
        best = self._totals(logprobs_BKV, looked_BK).flatten(1).topk(2 * num_beams, dim=-1)
        chosen_logprobs = logprobs_BKV.flatten(1).gather(1, best.indices)
        listed = (best.values, chosen_logprobs, best.indices // num_tokens, best.indices % num_tokens)
        picks = [
            self._row(row, list(zip(*each, strict=True)))
            for row, each in enumerate(zip(*(each.tolist() for each in listed), strict=True))
        ]
        self._done = [
            was or _is_done(self._finished[row], self._beams[row], num_beams) for row, was in enumerate(self._done)
        ]
        picked_BK2 = torch.tensor(picks, device=self._device)
        return picked_BK2[..., 0], picked_BK2[..., 1]

    def _totals(self, logprobs_BKV: Tensor, looked_BK: Tensor | None) -> Tensor:
        """What each beam would be worth with each token, (B, K, V)."""
        totals = [[beam.total for beam in row] for row in self._beams]
        totals_BK = torch.tensor(totals, dtype=torch.float64, device=self._device)
        if self._fusion is None:
            return totals_BK[..., None] + logprobs_BKV
        prefixes = [[beam.prefix or self._fusion.empty for beam in row] for row in self._beams]
        added_BKV = self._fusion.added(prefixes, self._end, self._device)
        if looked_BK is not None:
            added_BKV = added_BKV + self._fusion.coverage_score * looked_BK[..., None]
        return totals_BK[..., None] + with_ends_ruled(logprobs_BKV, self._end) + added_BKV

    def _row(self, row: int, listed: Sequence[tuple[float, float, int, int]]) -> list[tuple[int, int]]:
        """Ended hypotheses are kept, the best others become the beams of a row; (parent, token) of each.

        Args:
            listed: total, log-probability, parent and token, best first.
        """
        num_beams, new = len(self._beams[row]), []
        survivors: list[tuple[int, int]] = []
        for total, logprob, parent, token in listed:
            before = self._beams[row][parent]
            sum_logprob = before.sum_logprob + logprob
            if token == self._end:
                if total > -math.inf and not self._done[row]:
                    ended = [*self._finished[row], _Hypothesis(before.history, sum_logprob, total, before.prefix, True)]
                    self._finished[row] = sorted(ended, key=lambda each: -each.score)[:num_beams]
            elif len(survivors) < num_beams:
                survivors.append((parent, token))
                prefix = before.prefix
                if self._fusion is not None and prefix is not None:
                    prefix = self._fusion.extended(prefix, token)
                new.append(_Beam([*before.history, (token, sum_logprob)], total, prefix))
        self._beams[row] = new
        return survivors

    def best(self) -> list[list[_Hypothesis]]:
        """What has ended of each row, else what runs."""
        return [
            ended or [_Hypothesis(beam.history, beam.sum_logprob, beam.total, beam.prefix, False) for beam in beams]
            for ended, beams in zip(self._finished, self._beams, strict=True)
        ]


def _ranked(hypotheses: Sequence[_Hypothesis], no_speech_prob: float, most: int, fusion: Fusion | None) -> list[Ranked]:
    best = sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)[:most]
    wholes = [None if fusion is None or each.prefix is None else fusion.whole(each.prefix) for each in best]
    return [
        Ranked(
            _decoded(each, no_speech_prob),
            each.score,
            0.0 if whole is None else whole.lm,
            0 if whole is None else whole.num_words,
        )
        for each, whole in zip(best, wholes, strict=True)
    ]


def _decoded(best: _Hypothesis, no_speech_prob: float) -> DecodedTokens:
    sums = [total for _, total in best.history]
    logprobs = [total - before for before, total in zip([0.0, *sums], sums, strict=False)]
    ids = [token for token, _ in best.history]
    return DecodedTokens(ids, logprobs, best.sum_logprob, len(ids) + best.is_finished, no_speech_prob, best.is_finished)


def _is_done(finished: list[_Hypothesis], beams: Sequence[_Beam], num_beams: int) -> bool:
    """Whether no running beam can get ahead of the worst of enough ended ones, were it to end now."""
    best = beams[0]
    now = _Hypothesis(best.history, best.sum_logprob, best.total, best.prefix, False)
    return len(finished) == num_beams and finished[-1].score >= now.score
