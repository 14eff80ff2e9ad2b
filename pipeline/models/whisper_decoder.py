"""Whisper decoding, greedy or sampled: rows come, take a token at every step, and leave when they are done.

Slots of rows that are done are filled with rows that wait, so that steps stay wide (continuous batching). What a row
gets does not depend on which rows are beside it.

B rows, V vocabulary, L tokens of a prompt, N tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.models.whisper_state import Crossed, DecoderState, crossed
from pipeline.models.whisper_tokens import TokenRules, WhisperTokens
from pipeline.models.whisper_watch import LoopWatch, Sampler
from pipeline.models.whisper_weights import DecoderWeights

REFILL_SHARE = 0.25
"""Rows that are done leave when they make up this share of the slots in use: moving the others costs too."""
STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 8}
"""On a GPU each look at which rows are done waits for it."""


class Decoded(NamedTuple):
    """One row: text and timestamp tokens without prompt and end, and what Whisper reports of them.

    `logprobs`: of each token; `sum_logprob` is over `num_chosen` tokens, the end included. `is_finished`: the end was
    reached.
    """

    tokens: list[int]
    logprobs: list[float]
    sum_logprob: float
    num_chosen: int
    no_speech_prob: float
    is_finished: bool


class Entry(NamedTuple):
    """Rows that want to be decoded. `prompts`: all of one length; `names`: the caller's; `seeds`: of the sampler."""

    looked_at: Crossed
    prompts: list[list[int]]
    names: list[int]
    seeds: list[int]


@dataclass(frozen=True, kw_only=True)
class Search:
    """How tokens are chosen. `temperature` 0: the most probable one; `stops_loops`: a row that repeats itself stops and
    is not finished, as one that reaches `max_new_tokens`."""

    tokens: WhisperTokens
    timestamps: bool
    max_new_tokens: int
    temperature: float = 0.0
    stops_loops: bool = False


def detect_languages(
    weights: DecoderWeights, looked_at: Crossed, tokens: WhisperTokens, among: Sequence[str]
) -> list[dict[str, float]]:
    """Probability of each language (or of those `among`, if any) for each row."""
    start = torch.full((len(looked_at), 1), tokens.start, device=weights.device)
    logits_BV = weights.logits(DecoderState(weights, len(looked_at), 1).admit(looked_at, start))[:, 0]
    codes = sorted(among or tokens.languages, key=lambda code: tokens.languages[code])
    probability_BK = logits_BV[:, [tokens.languages[code] for code in codes]].softmax(-1)
    return [dict(zip(codes, row, strict=True)) for row in probability_BK.tolist()]


@torch.inference_mode()
def decode(
    weights: DecoderWeights,
    next_entry: Callable[[int], Entry | None],
    done: Callable[[int, Decoded], None],
    search: Search,
    capacity: int,
) -> None:
    """Decodes until no row is left.

    Args:
        weights: the decoder's.
        next_entry: gives rows that wait, at most as many as it is told; None if none waits now. It is asked again when
            rows have left, so what is `done` may bring new ones.
        done: takes the name and the result of each row.
        search: how tokens are chosen.
        capacity: most rows at a time.
    """
    table = _Table(weights, search, capacity)
    between = STEPS_BETWEEN_LOOKS[weights.device.type]
    while True:
        while len(table) < capacity and (entry := next_entry(capacity - len(table))) is not None:
            table.admit(entry)
        if not len(table):
            return
        while table.num_running > (1 - REFILL_SHARE) * len(table):
            table.step(between)
        for name, decoded in table.leave():
            done(name, decoded)


class _Table:
    """The rows that are being decoded."""

    def __init__(self, weights: DecoderWeights, search: Search, capacity: int) -> None:
        device = weights.device
        self._weights, self._search = weights, search
        self._max_new = search.max_new_tokens
        self._state: DecoderState | None = None
        self._capacity = capacity
        self._rules = TokenRules(search.tokens, capacity, search.timestamps, device)
        self._watch = LoopWatch(capacity, search.tokens.first_timestamp, device) if search.stops_loops else None
        self._sampler = Sampler(search.temperature) if search.temperature else None
        self._chosen_BN = torch.zeros((capacity, search.max_new_tokens), dtype=torch.long, device=device)
        self._logprobs_BN = torch.zeros((capacity, search.max_new_tokens), device=device)
        self._count_B = torch.zeros(capacity, dtype=torch.long, device=device)
        self._slots_B = torch.arange(capacity, device=device)
        self._running_B = torch.zeros(capacity, dtype=torch.bool, device=device)
        self._latest_B = torch.zeros(capacity, dtype=torch.long, device=device)
        self._names: list[int] = []
        self._no_speech: list[float] = []
        self.num_running = 0

    def __len__(self) -> int:
        return len(self._names)

    def admit(self, entry: Entry) -> None:
        """New rows, up to their first token."""
        tokens, first = self._search.tokens, len(self)
        rows = slice(first, first + len(entry.names))
        prompts_BL = torch.tensor(entry.prompts, device=self._weights.device)
        length = prompts_BL.shape[1]
        if self._state is None:
            self._max_new = min(self._max_new, self._weights.max_positions - length)
            self._state = DecoderState(self._weights, self._capacity, length + self._max_new)
        hidden_BLD = self._state.admit(entry.looked_at, prompts_BL)
        logits_BLV = self._weights.logits(hidden_BLD[:, [entry.prompts[0].index(tokens.start), -1]])
        self._no_speech += logits_BLV[:, 0].softmax(-1)[:, tokens.no_speech].tolist()
        self._names += entry.names
        self._running_B[rows], self._count_B[rows] = True, 0
        self._rules.open(rows)
        if self._watch is not None:
            self._watch.open(rows)
        if self._sampler is not None:
            self._sampler.open(entry.seeds)
        masked_BV = self._rules.mask(logits_BLV[:, 1], rows)
        logprobs_BV = masked_BV.log_softmax(-1)
        chosen = logprobs_BV.argmax(-1) if self._sampler is None else self._sampler.choose(masked_BV, rows)
        self._note(chosen, logprobs_BV.gather(1, chosen[:, None])[:, 0], rows)
        self.num_running = int(self._running_B[: len(self)].sum())

    def step(self, count: int) -> None:
        """`count` more tokens of every row; rows that are done stay as they are."""
        rows = slice(0, len(self))
        assert self._state is not None
        for _ in range(count):
            logits_BV = self._weights.logits(self._state.step(self._latest_B[rows]))[:, 0]
            if self._sampler is None:
                chosen, logprobs = self._rules.most_probable(logits_BV, rows)
            else:
                masked_BV = self._rules.mask(logits_BV, rows)
                chosen = self._sampler.choose(masked_BV, rows)
                logprobs = masked_BV.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
            self._note(chosen, logprobs, rows)
        self.num_running = int(self._running_B[rows].sum())

    def _note(self, chosen_B: Tensor, logprobs_B: Tensor, rows: slice) -> None:
        running_B, count_B, slots_B = self._running_B[rows], self._count_B[rows], self._slots_B[rows]
        chosen_B = torch.where(running_B, chosen_B, self._search.tokens.end)
        at_B = count_B.clamp(max=self._max_new - 1)
        self._chosen_BN[slots_B, at_B] = torch.where(running_B, chosen_B, self._chosen_BN[slots_B, at_B])
        self._logprobs_BN[slots_B, at_B] = torch.where(running_B, logprobs_B, self._logprobs_BN[slots_B, at_B])
        count_B += running_B
        self._latest_B[rows] = chosen_B
        self._rules.advance(chosen_B, rows)
        running_B &= (chosen_B != self._search.tokens.end) & (count_B < self._max_new)
        if self._watch is not None:
            running_B &= ~self._watch.advance(chosen_B, rows)

    def leave(self) -> list[tuple[int, Decoded]]:
        """Results of the rows that are done; the others move together."""
        assert self._state is not None
        running = self._running_B[: len(self)].tolist()
        found = [self._result(row) for row, goes_on in enumerate(running) if not goes_on]
        kept = [row for row, goes_on in enumerate(running) if goes_on]
        moved = torch.tensor(kept, dtype=torch.long, device=self._weights.device)
        self._state.keep(kept)
        for holder in (self._rules, self._watch, self._sampler):
            if holder is not None:
                holder.move(moved)
        for each in (self._chosen_BN, self._logprobs_BN, self._count_B, self._running_B, self._latest_B):
            each[: len(kept)] = each[moved]
        self._names = [self._names[row] for row in kept]
        self._no_speech = [self._no_speech[row] for row in kept]
        return found

    def _result(self, row: int) -> tuple[int, Decoded]:
        count = int(self._count_B[row])
        ids, logprobs = self._chosen_BN[row, :count].tolist(), self._logprobs_BN[row, :count].tolist()
        is_finished = ids[-1] == self._search.tokens.end
        tokens = ids[:-1] if is_finished else ids
        decoded = Decoded(tokens, logprobs[: len(tokens)], sum(logprobs), count, self._no_speech[row], is_finished)
        return self._names[row], decoded


def entries_of(
    weights: DecoderWeights, hidden: Sequence[Tensor], prompts: list[list[int]]
) -> Callable[[int], Entry | None]:
    """Rows of encoder outputs hidden_FD one after the other, as `decode` takes them; their names count from 0."""
    waiting = list(range(len(hidden)))

    def next_entry(most: int) -> Entry | None:
        if not waiting:
            return None
        frames = len(hidden[waiting[0]])
        rows = [row for row in waiting[:most] if len(hidden[row]) == frames]
        for row in rows:
            waiting.remove(row)
        batch = torch.stack([hidden[row] for row in rows])
        return Entry(crossed(weights, batch), [prompts[row] for row in rows], rows, rows)

    return next_entry
