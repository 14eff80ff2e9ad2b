"""Beam search: for the few segments that greedy and sampled decoding cannot read, and for all where it is asked for.

B rows, K beams, V vocabulary. Hypotheses are ranked by mean log-probability, and the search ends as in Hugging Face's
`generate` with `length_penalty=1`, which is the oracle; with a language model beside it they are ranked by their sums, in
which each word has a bonus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from audiomill.models.ctc.context import Prefix
from audiomill.models.pulse import beat
from audiomill.models.seq2seq.cross import Crossed
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.fusion import Coverage, Fusion, with_ends_ruled
from audiomill.models.seq2seq.slots import DecoderState
from audiomill.models.seq2seq.table import Decoded, Search, begun
from audiomill.models.seq2seq.token_rules import TokenRules

History = list[tuple[int, float]]
"""Tokens of a beam, each with the sum of the decoder's log-probabilities up to it."""


class Ranked(NamedTuple):
    """A text of a row. `score`: what it was ranked by; `lm`, `num_words`: of its words, see `Fusion`."""

    decoded: Decoded
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
    begins: Crossed | Tensor,
    prompts: list[list[int]],
    search: Search,
    num_beams: int,
    fusion: Fusion | None = None,
) -> list[list[Ranked]]:
    """The best hypotheses of each row, best first: one, or as many as the fusion wants.

    Args:
        weights: the decoder's.
        begins, prompts: see `Entry`.
        search: tokens, timestamps and the longest answer; no temperature.
        num_beams: K.
        fusion: what a text is worth besides.
    """
    device, num_rows = weights.device, len(prompts)
    prompt_length = begins.shape[1] if isinstance(begins, Tensor) else len(prompts[0])
    tokens = search.tokens
    max_new = min(search.max_new_tokens, weights.max_positions - prompt_length)
    rows = slice(0, num_rows * num_beams)
    coverage = Coverage(num_rows, num_beams) if fusion is not None and fusion.coverage_score and weights.looks else None
    last_heads = [(len(weights.layers) - 1, head) for head in range(weights.num_heads)]
    state = DecoderState(
        weights, rows.stop, prompt_length + max_new, last_heads if coverage is not None else (), fan=num_beams
    )
    rules = TokenRules(tokens, rows.stop, search.timestamps, device)
    logits, no_speech = begun(weights, state, begins, prompts, tokens, fan=num_beams)
    # All beams of a row are the same at first: only one may go on.
    scores_BK = torch.full((num_rows, num_beams), -torch.inf, dtype=torch.float64, device=device)
    scores_BK[:, 0] = 0
    empty = None if fusion is None else fusion.empty
    beams = [[_Beam([], score, empty) for score in row] for row in scores_BK.tolist()]
    finished: list[list[_Hypothesis]] = [[] for _ in prompts]
    done = [False] * num_rows  # what runs on only for its neighbours' sake changes no more
    for _ in range(max_new):
        beat()
        logprobs = rules.mask(logits, rows).log_softmax(-1).double().view(num_rows, num_beams, -1)
        totals_BKV = scores_BK[..., None] + logprobs
        if fusion is not None:
            totals_BKV = scores_BK[..., None] + with_ends_ruled(logprobs, tokens.end)
            totals_BKV = totals_BKV + fusion.added(
                [[beam.prefix or fusion.empty for beam in row] for row in beams], tokens.end, device
            )
            if coverage is not None:
                totals_BKV = totals_BKV + fusion.coverage_score * coverage.looked(state.watched_scores())[..., None]
        best = totals_BKV.flatten(1).topk(2 * num_beams, dim=-1)
        said = logprobs.flatten(1).gather(1, best.indices)
        parents, chosen = best.indices // tokens.size, best.indices % tokens.size
        picks = _next_beams(best.values, said, parents, chosen, beams, finished, done, tokens.end, fusion)
        scores_BK = torch.tensor([[beam.total for beam in row] for row in beams], dtype=torch.float64, device=device)
        order = torch.tensor(
            [row * num_beams + parent for row, each in enumerate(picks) for parent, _ in each], device=device
        )
        next_tokens = torch.tensor([token for row in picks for _, token in row], device=device)
        done = [was or _is_done(finished[row], beams[row], num_beams) for row, was in enumerate(done)]
        if all(done):
            break
        state.reorder(order)
        if coverage is not None:
            coverage.reorder(order.view(num_rows, num_beams) % num_beams)
        rules.move(order)
        rules.advance(next_tokens, rows)
        logits = weights.logits(state.step(next_tokens))[:, 0]
    for row, running in enumerate(beams):
        if not finished[row]:
            finished[row] = [_Hypothesis(b.history, b.sum_logprob, b.total, b.prefix, False) for b in running]
    return [
        _ranked(found, silence, 1 if fusion is None else fusion.num_searched or num_beams, fusion)
        for found, silence in zip(finished, no_speech, strict=True)
    ]


def _ranked(found: Sequence[_Hypothesis], no_speech_prob: float, most: int, fusion: Fusion | None) -> list[Ranked]:
    best = sorted(found, key=lambda hypothesis: -hypothesis.score)[:most]
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


def _decoded(best: _Hypothesis, no_speech_prob: float) -> Decoded:
    sums = [total for _, total in best.history]
    logprobs = [total - before for before, total in zip([0.0, *sums], sums, strict=False)]
    ids = [token for token, _ in best.history]
    return Decoded(ids, logprobs, best.sum_logprob, len(ids) + best.is_finished, no_speech_prob, best.is_finished)


def _is_done(finished: list[_Hypothesis], beams: Sequence[_Beam], num_beams: int) -> bool:
    """Whether no running beam can get ahead of the worst of enough ended ones, were it to end now."""
    best = beams[0]
    now = _Hypothesis(best.history, best.sum_logprob, best.total, best.prefix, False)
    return len(finished) == num_beams and finished[-1].score >= now.score


def _next_beams(
    values: Tensor,
    said: Tensor,
    parents: Tensor,
    chosen: Tensor,
    beams: list[list[_Beam]],
    finished: list[list[_Hypothesis]],
    done: list[bool],
    end: int,
    fusion: Fusion | None,
) -> list[list[tuple[int, int]]]:
    """Of each row: ended hypotheses go to `finished`, the best others become its beams; (parent, token) of each."""
    picks: list[list[tuple[int, int]]] = []
    listed = zip(values.tolist(), said.tolist(), parents.tolist(), chosen.tolist(), strict=True)
    for row, (scores, logprobs, froms, tokens) in enumerate(listed):
        kept: list[tuple[int, int]] = []
        new: list[_Beam] = []
        num_beams = len(beams[row])
        for score, logprob, parent, token in zip(scores, logprobs, froms, tokens, strict=True):
            before = beams[row][parent]
            own = before.sum_logprob + logprob
            if token == end:
                if score > -float("inf") and not done[row]:
                    ended = [*finished[row], _Hypothesis(before.history, own, score, before.prefix, True)]
                    finished[row] = sorted(ended, key=lambda hypothesis: -hypothesis.score)[:num_beams]
            elif len(kept) < num_beams:
                kept.append((parent, token))
                prefix = None if fusion is None or before.prefix is None else fusion.extended(before.prefix, token)
                new.append(_Beam([*before.history, (token, own)], score, prefix))
        beams[row] = new
        picks.append(kept)
    return picks
