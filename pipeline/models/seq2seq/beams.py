"""Beam search, for the few segments that greedy and sampled decoding cannot read.

B rows, K beams, V vocabulary. Hypotheses are ranked by mean log-probability, and the search ends as in Hugging Face's
`generate` with `length_penalty=1`, which is the oracle.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from audiomill.models.pulse import beat
from audiomill.models.seq2seq.cross import Crossed
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.slots import DecoderState
from audiomill.models.seq2seq.table import Decoded, Search, begun
from audiomill.models.seq2seq.token_rules import TokenRules

History = list[tuple[int, float]]
"""Tokens of a beam, each with the sum of log-probabilities up to it."""


class _Hypothesis(NamedTuple):
    tokens: History
    sum_logprob: float
    is_finished: bool

    @property
    def mean(self) -> float:
        return self.sum_logprob / max(1, len(self.tokens) + self.is_finished)


@torch.inference_mode()
def decode_with_beams(
    weights: DecoderWeights, begins: Crossed | Tensor, prompts: list[list[int]], search: Search, num_beams: int
) -> list[Decoded]:
    """The hypothesis with the highest mean log-probability of each row.

    Args:
        weights: the decoder's.
        begins, prompts: see `Entry`.
        search: tokens, timestamps and the longest answer; no temperature.
        num_beams: K.
    """
    device, num_rows = weights.device, len(prompts)
    prompt_length = begins.shape[1] if isinstance(begins, Tensor) else len(prompts[0])
    tokens = search.tokens
    max_new = min(search.max_new_tokens, weights.max_positions - prompt_length)
    rows = slice(0, num_rows * num_beams)
    state = DecoderState(weights, rows.stop, prompt_length + max_new, fan=num_beams)
    rules = TokenRules(tokens, rows.stop, search.timestamps, device)
    logits, no_speech = begun(weights, state, begins, prompts, tokens, fan=num_beams)
    # All beams of a row are the same at first: only one may go on.
    scores_BK = torch.full((num_rows, num_beams), -torch.inf, dtype=torch.float64, device=device)
    scores_BK[:, 0] = 0
    histories: list[list[History]] = [[[] for _ in range(num_beams)] for _ in prompts]
    finished: list[list[_Hypothesis]] = [[] for _ in prompts]
    done = [False] * num_rows  # what runs on only for its neighbours' sake changes no more
    for _ in range(max_new):
        beat()
        logprobs = rules.mask(logits, rows).log_softmax(-1).double().view(num_rows, num_beams, -1)
        totals = (scores_BK[..., None] + logprobs).flatten(1)
        best = totals.topk(2 * num_beams, dim=-1)
        parents, chosen = best.indices // tokens.size, best.indices % tokens.size
        picks = _next_beams(best.values, parents, chosen, histories, finished, done, tokens.end, num_beams)
        scores_BK = torch.tensor([[score for score, _, _ in row] for row in picks], dtype=torch.float64, device=device)
        order = torch.tensor(
            [row * num_beams + parent for row, beams in enumerate(picks) for _, parent, _ in beams], device=device
        )
        next_tokens = torch.tensor([token for row in picks for _, _, token in row], device=device)
        done = [
            was or _is_done(finished[row], histories[row], picks[row][0][0], num_beams) for row, was in enumerate(done)
        ]
        if all(done):
            break
        state.reorder(order)
        rules.move(order)
        rules.advance(next_tokens, rows)
        logits = weights.logits(state.step(next_tokens))[:, 0]
    for row, beams in enumerate(histories):
        if not finished[row]:
            pairs = zip(beams, scores_BK[row].tolist(), strict=True)
            finished[row] = [_Hypothesis(history, score, False) for history, score in pairs]
    best_of = [max(each, key=lambda hypothesis: hypothesis.mean) for each in finished]
    return [_decoded(each, silence) for each, silence in zip(best_of, no_speech, strict=True)]


def _decoded(best: _Hypothesis, no_speech_prob: float) -> Decoded:
    sums = [total for _, total in best.tokens]
    logprobs = [total - before for before, total in zip([0.0, *sums], sums, strict=False)]
    ids = [token for token, _ in best.tokens]
    return Decoded(ids, logprobs, best.sum_logprob, len(ids) + best.is_finished, no_speech_prob, best.is_finished)


def _is_done(finished: list[_Hypothesis], beams: list[History], best_score: float, num_beams: int) -> bool:
    """Whether no running beam can get ahead of the worst of enough ended ones, were it to end now."""
    return len(finished) == num_beams and finished[-1].mean >= best_score / max(1, len(beams[0]))


def _next_beams(
    values: Tensor,
    parents: Tensor,
    chosen: Tensor,
    histories: list[list[History]],
    finished: list[list[_Hypothesis]],
    done: list[bool],
    end: int,
    num_beams: int,
) -> list[list[tuple[float, int, int]]]:
    """Of each row: ended hypotheses go to `finished`, the best others become its beams (score, parent, token)."""
    picks: list[list[tuple[float, int, int]]] = []
    for row, (scores, froms, tokens) in enumerate(zip(values.tolist(), parents.tolist(), chosen.tolist(), strict=True)):
        kept: list[tuple[float, int, int]] = []
        for score, parent, token in zip(scores, froms, tokens, strict=True):
            if token == end:
                if score > -float("inf") and not done[row]:
                    ended = [*finished[row], _Hypothesis(histories[row][parent], score, True)]
                    finished[row] = sorted(ended, key=lambda hypothesis: -hypothesis.mean)[:num_beams]
            elif len(kept) < num_beams:
                kept.append((score, parent, token))
        histories[row] = [[*histories[row][parent], (token, score)] for score, parent, token in kept]
        picks.append(kept)
    return picks
