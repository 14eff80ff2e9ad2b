"""CTC prefix beam search over many segments at once, with language model, lexicon and hotwords.

Every array has a row a segment and a column a prefix; a step does one frame of all segments. Only what survives a
frame becomes a Python object. B segments, F frames, K prefixes, C candidate tokens of a frame (the blank first).

Source: Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent
DNNs" (arXiv:1408.2873), algorithm 1: the probability of a prefix is the sum over all its alignments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.models.ctc.context import Context, Prefix
from audiomill.models.ctc.emissions import Emissions
from audiomill.models.watchdog import heartbeat

_NEVER = -np.inf
BATCH = 48
"""Segments that are searched side by side: more do not make a step cheaper."""
HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
Floats = NDArray[np.float64]


class ScoredText(NamedTuple):
    """A text and its scores. `acoustic`: natural log-probability of the tokens given the audio, all alignments summed."""

    prefix: Prefix
    acoustic: float
    score: float


def prefix_beam_search(
    rows: Sequence[Emissions], context: Context, beam_size: int, num_best: int
) -> list[list[ScoredText]]:
    """Best texts of each segment, best first.

    Args:
        rows: candidate tokens of every frame.
        context: what a prefix is worth besides its sound.
        beam_size: prefixes kept at each frame.
        num_best: texts to give.
    """
    results: list[list[ScoredText]] = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at].logprobs_FC))
    for start in range(0, len(order), BATCH):
        heartbeat()
        chosen = order[start : start + BATCH]
        for at, best in zip(chosen, _searched([rows[at] for at in chosen], context, beam_size), strict=True):
            results[at] = best[:num_best]
    return results


def _searched(rows: Sequence[Emissions], context: Context, beam_size: int) -> list[list[ScoredText]]:
    lengths = np.array([len(row.logprobs_FC) for row in rows])
    beam = _Beam(len(rows), beam_size, context)
    width = max((row.logprobs_FC.shape[1] for row in rows), default=1)
    for frame in range(int(lengths.max(initial=0))):
        count = int((lengths > frame).sum())  # rows are sorted: the longest come first
        tokens_BC = np.full((count, width), -1, np.int64)
        logprobs_BC = np.full((count, width), _NEVER)
        for at in range(count):
            own_item = rows[at]
            tokens_BC[at, : own_item.tokens_FC.shape[1]] = own_item.tokens_FC[frame]
            logprobs_BC[at, : own_item.logprobs_FC.shape[1]] = own_item.logprobs_FC[frame]
        beam.step(tokens_BC, logprobs_BC)
    return [beam.best(at) for at in range(len(rows))]


class _Beam:
    """Prefixes of all segments after some frames. `blank`, `other`: log-probability of the alignments that end in a
    blank, or in the last token; `worth`: what the context adds."""

    def __init__(self, num_rows: int, beam_size: int, context: Context) -> None:
        self._context, self._size = context, beam_size
        shape = (num_rows, beam_size)
        self._blank, self._other = np.full(shape, _NEVER), np.full(shape, _NEVER)
        self._blank[:, 0] = 0.0
        self._worth = np.zeros(shape)
        self._last = np.full(shape, -2, np.int64)
        # Numbers below 2^20 are nobody's hash: those of places that hold no prefix.
        self._nobody = np.broadcast_to(np.arange(2, beam_size + 2, dtype=np.uint64), shape)
        self._hash, self._parent = self._nobody.copy(), self._nobody + np.uint64(beam_size)
        self._prefix: list[list[Prefix]] = [[context.empty] * beam_size for _ in range(num_rows)]
        self._states = np.zeros((*shape, context.num_states), np.int64)
        self._states[:] = context.empty.states
        self._word_worth = np.zeros(shape)

    def step(self, tokens_BC: NDArray[np.int64], logprobs_BC: Floats) -> None:
        """One frame of the first rows."""
        rows = slice(0, len(tokens_BC))
        blank, other, last, worth = self._blank[rows], self._other[rows], self._last[rows], self._worth[rows]
        both = np.logaddexp(blank, other)
        is_last_BKC = tokens_BC[:, None, :] == last[..., None]
        last_logprob = np.where(is_last_BKC, logprobs_BC[:, None, :], _NEVER).max(-1)
        stay_blank = both + logprobs_BC[:, :1]
        stay_other = other + last_logprob
        # A token behind itself needs a blank in between.
        grown_BKC = np.where(is_last_BKC, blank[..., None], both[..., None]) + logprobs_BC[:, None, :]
        grown_BKC[:, :, 0] = _NEVER
        stay_other = self._merged(rows, grown_BKC, is_last_BKC, stay_other)
        delta_BKC, states = self._context.token_scores(
            self._states[rows], tokens_BC, self._word_worth[rows], self._prefix[rows]
        )
        self._keep(rows, tokens_BC, stay_blank, stay_other, grown_BKC, worth, delta_BKC, states)

    def _merged(self, rows: slice, grown_BKC: Floats, is_last_BKC: NDArray[np.bool_], stay_other: Floats) -> Floats:
        """Prefixes that grow into one that is in the beam already add to it instead."""
        is_parent_BKK = self._parent[rows][:, :, None] == self._hash[rows][:, None, :]
        at_B, child, parent = np.nonzero(is_parent_BKK)
        result = is_last_BKC[at_B, child].any(-1)
        at_B, child, parent = at_B[result], child[result], parent[result]
        column = is_last_BKC[at_B, child].argmax(-1)
        token_scores = grown_BKC[at_B, parent, column]
        stay_other[at_B, child] = np.logaddexp(stay_other[at_B, child], token_scores)
        grown_BKC[at_B, parent, column] = _NEVER
        return stay_other

    def _keep(
        self,
        rows: slice,
        tokens_BC: NDArray[np.int64],
        stay_blank: Floats,
        stay_other: Floats,
        grown_BKC: Floats,
        worth: Floats,
        delta_BKC: Floats,
        states_BKCS: NDArray[np.int64],
    ) -> None:
        """The best of what stays and what grows."""
        num_rows, size, width = grown_BKC.shape
        total_stay = np.logaddexp(stay_blank, stay_other) + worth
        total_grown = grown_BKC + worth[..., None] + delta_BKC
        totals = np.concatenate([total_stay, total_grown.reshape(num_rows, -1)], axis=1)
        chosen = np.argpartition(-totals, size - 1, axis=1)[:, :size]
        source = np.where(chosen < size, chosen, (chosen - size) // width)
        column = (chosen - size) % width
        is_grown = chosen >= size
        at = np.arange(num_rows)[:, None]
        token = tokens_BC[at, column]
        before_hash = self._hash[rows][at, source]
        grown_hash = (before_hash + (token + 2).astype(np.uint64)) * HASH_FACTOR
        self._blank[rows] = np.where(is_grown, _NEVER, stay_blank[at, source])
        self._other[rows] = np.where(is_grown, grown_BKC[at, source, column], stay_other[at, source])
        self._worth[rows] = worth[at, source] + np.where(is_grown, delta_BKC[at, source, column], 0.0)
        alive = np.take_along_axis(totals, chosen, 1) > _NEVER
        nobody = self._nobody[rows]
        parent = np.where(is_grown, before_hash, self._parent[rows][at, source])
        self._parent[rows] = np.where(alive, parent, nobody + np.uint64(size))
        self._hash[rows] = np.where(alive, np.where(is_grown, grown_hash, before_hash), nobody)
        self._last[rows] = np.where(alive, np.where(is_grown, token, self._last[rows][at, source]), -2)
        before = self._states[rows][at, source]
        self._states[rows] = np.where(is_grown[..., None], states_BKCS[at, source, column], before)
        word_worth = self._word_worth[rows][at, source]
        for row in range(num_rows):
            old = self._prefix[row]
            self._prefix[row] = [old[number] for number in source[row].tolist()]
            for number in np.flatnonzero(is_grown[row] & alive[row]).tolist():
                prefix = self._context.extended(
                    self._prefix[row][number], int(token[row, number]), tuple(self._states[row, number].tolist())
                )
                self._prefix[row][number] = prefix
                word_worth[row, number] = prefix.word_worth
        self._word_worth[rows] = word_worth

    def best(self, row: int) -> list[ScoredText]:
        """Whole texts, best first; each once."""
        acoustic = np.logaddexp(self._blank[row], self._other[row])
        results: dict[tuple[int, ...], ScoredText] = {}
        for number in np.flatnonzero(acoustic > _NEVER).tolist():
            prefix, ends = self._context.ended(self._prefix[row][number])
            if ends == _NEVER:
                continue
            score = float(acoustic[number] + self._worth[row, number] + ends)
            each = ScoredText(prefix, float(acoustic[number]), score)
            known = results.get(prefix.tokens())
            if known is None or known.score < score:
                results[prefix.tokens()] = each
        return sorted(results.values(), key=lambda each: (-each.score, each.prefix.tokens()))
