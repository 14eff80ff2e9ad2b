"""The slots of a decoder: rows that it is working on, from prefill to their end, and what is kept of each. A CUDA graph replays a step.

On a CPU shapes follow the rows. On a GPU steps have fixed shapes in memory that does not move: there are as many slots as
the next power of two, and slots without a row are computed along.

B rows, V vocabulary, L tokens of a prompt, N tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audiomill.models.seq2seq.cross_attention_cache import CrossKV, StaticCrossCache
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.kv_cache import KVCache
from audiomill.models.seq2seq.repetition_detector import RepetitionDetector
from audiomill.models.seq2seq.special_tokens import SpecialTokens
from audiomill.models.seq2seq.token_rules import TokenRules


class CudaGraphRunner:
    """Runs steps of fixed shapes. On CUDA a step that comes again is recorded as a graph and replayed from then on;
    elsewhere it is just run.

    Args:
        device: where the steps run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, Any] = {}
        self._pool: Any = None

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Runs `step`.

        Args:
            key: the same for steps that do the same to the same memory.
            step: tensors of fixed shapes at fixed addresses, nothing that waits for the device.
        """
        if self._device.type != "cuda" or key not in self._graphs:
            step()  # the first time on CUDA, so that libraries set themselves up outside a graph
            self._graphs[key] = None
            return
        if self._graphs[key] is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                step()
            self._pool = self._pool or graph.pool()
            self._graphs[key] = graph
        self._graphs[key].replay()


MIN_SLOTS = 8


class DecodedTokens(NamedTuple):
    """One row: text and timestamp tokens without prompt and end, and what the model reports of them.

    `logprobs`: of each token; `sum_logprob` is over `num_chosen` tokens, the end included. `is_finished`: the end was
    reached.
    """

    tokens: list[int]
    logprobs: list[float]
    sum_logprob: float
    num_chosen: int
    no_speech_prob: float
    is_finished: bool


class DecodeRequest(NamedTuple):
    """Rows that want to be decoded.

    `begins`: what they look at, or what they begin with in place of tokens, all of one length (prefix_BLD); `prompts`: behind
    what is looked at, all of one length, empty behind a prefix; `names`: the caller's; `limits`: most
    tokens of each row, where it is less than the search's; `max_tokens`: tokens that may be said in each: a text that repeats itself
    is no loop before it has as many.
    """

    begins: CrossKV | Tensor
    prompts: list[list[int]]
    names: list[int]
    limits: list[int] | None = None
    max_tokens: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """How tokens are chosen. `stops_repetition`: a row that repeats itself stops and
    is not finished, as one that reaches `max_new_tokens`."""

    tokens: SpecialTokens
    timestamps: bool
    max_new_tokens: int
    stops_repetition: bool = False


def no_speech_of(logits_BV: Tensor, tokens: SpecialTokens) -> list[float]:
    """Probability that nobody speaks, by the logits behind the start; 0 where the vocabulary cannot say it."""
    if tokens.no_speech is None:
        return [0.0] * len(logits_BV)
    result: list[float] = logits_BV.softmax(-1)[:, tokens.no_speech].tolist()
    return result


def prefill(
    weights: DecoderWeights,
    state: KVCache,
    begins: CrossKV | Tensor,
    prompts: list[list[int]],
    tokens: SpecialTokens,
    fan: int = 1,
) -> tuple[Tensor, list[float]]:
    """New rows up to their first token: logits_BV of it, and the probability that nobody speaks of each row.

    Args:
        weights, state: of the decoder.
        begins, prompts: see `DecodeRequest`.
        tokens: special ones.
        fan: rows that begin alike (beams).
    """
    if isinstance(begins, Tensor):
        logits_BV = weights.logits(state.admit_prefixes(begins.repeat_interleave(fan, 0))[:, -1:])[:, 0]
        return logits_BV, [0.0] * len(begins)
    prompts_BL = torch.tensor(prompts, device=weights.device).repeat_interleave(fan, 0)
    places = [-1] if tokens.no_speech is None else [prompts[0].index(tokens.start), -1]
    logits_BLV = weights.logits(state.admit(begins, prompts_BL)[:, places])
    return logits_BLV[:, -1], no_speech_of(logits_BLV[::fan, 0], tokens)


class DecodeSlots:
    """Slots for rows.

    Args:
        weights: the decoder's.
        search: options tokens are chosen.
        capacity: most rows at a time.
        prompt_length: L, of the longest row.
        max_frames: fixed shapes, for rows that look at up to so many frames; None: shapes follow the rows, but for rows on a
            GPU that look at nothing.
    """

    def __init__(
        self, weights: DecoderWeights, search: Search, capacity: int, prompt_length: int, max_frames: int | None = None
    ) -> None:
        device = weights.device
        self._weights, self._search, self.capacity = weights, search, capacity
        self._max_new = min(search.max_new_tokens, weights.max_positions - prompt_length)
        self._is_fixed = max_frames is not None or (not weights.has_cross_attention and device.type == "cuda")
        cross = None if max_frames is None else StaticCrossCache(weights, capacity, max_frames)
        self._state = KVCache(weights, capacity, prompt_length + self._max_new, cross=cross)
        self._rules = TokenRules(search.tokens, capacity, search.timestamps, device)
        self._repetition = (
            RepetitionDetector(capacity, search.tokens.first_timestamp, device) if search.stops_repetition else None
        )
        self._graph_runner = CudaGraphRunner(device)
        self._chosen_BN = torch.zeros((capacity, self._max_new), dtype=torch.long, device=device)
        self._logprobs_BN = torch.zeros((capacity, self._max_new), device=device)
        self._count_B = torch.zeros(capacity, dtype=torch.long, device=device)
        self._limit_B = torch.zeros(capacity, dtype=torch.long, device=device)
        self._max_tokens_B = torch.zeros(capacity, dtype=torch.long, device=device)
        self._slots_B = torch.arange(capacity, device=device)
        self._running_B = torch.zeros(capacity, dtype=torch.bool, device=device)
        self._latest_B = torch.zeros(capacity, dtype=torch.long, device=device)
        self._names: list[int] = []
        self._no_speech: list[float] = []
        self.num_running = 0

    def __len__(self) -> int:
        return len(self._names)

    @property
    def device(self) -> torch.device:
        return self._weights.device

    @property
    def frames(self) -> int | None:
        """Frames that rows must have to be admitted now; None for any."""
        return self._state.frames

    def admit(self, entry: DecodeRequest) -> None:
        """New rows, up to their first token."""
        tokens, first = self._search.tokens, len(self)
        rows = slice(first, first + len(entry.names))
        logits_BV, no_speech = prefill(self._weights, self._state, entry.begins, entry.prompts, tokens)
        self._no_speech += no_speech
        self._names += entry.names
        self._running_B[rows], self._count_B[rows] = True, 0
        limits = entry.limits or [self._max_new] * len(entry.names)
        self._limit_B[rows] = torch.tensor(limits, device=self._weights.device).clamp(max=self._max_new)
        self._max_tokens_B[rows] = torch.tensor(entry.max_tokens or [0] * len(entry.names), device=self._weights.device)
        self._rules.open(rows)
        if self._repetition is not None:
            self._repetition.open(rows)
        logprobs_BV = self._rules.mask(logits_BV, rows).log_softmax(-1)
        chosen = logprobs_BV.argmax(-1)
        self._note(chosen, logprobs_BV.gather(1, chosen[:, None])[:, 0], rows)
        self.num_running = int(self._running_B[: len(self)].sum())

    def step(self, count: int) -> None:
        """`count` more tokens of every row; rows that are done stay as they are."""
        width = self._width()
        for _ in range(count):
            longest = self._state.longest
            if self._is_fixed:
                self._graph_runner.run((self.frames, width, longest), lambda: self._compute(width, longest))  # noqa: B023
            else:
                self._compute(width, longest)
            self._state.count_step()
        self.num_running = int(self._running_B[:width].sum())

    def _width(self) -> int:
        if not self._is_fixed:
            return len(self)
        return min(self.capacity, max(MIN_SLOTS, 1 << (len(self) - 1).bit_length()))

    def _compute(self, width: int, longest: int) -> None:
        """One step on the device alone."""
        rows = slice(0, width)
        logits_BV = self._weights.logits(self._state.compute(self._latest_B[rows], longest))[:, 0]
        chosen, logprobs = self._rules.most_probable(logits_BV, rows)
        self._note(chosen, logprobs, rows)

    def _note(self, chosen_B: Tensor, logprobs_B: Tensor, rows: slice) -> None:
        running_B, count_B, slots_B = self._running_B[rows], self._count_B[rows], self._slots_B[rows]
        chosen_B = torch.where(running_B, chosen_B, self._search.tokens.end)
        at_B = count_B.clamp(max=self._max_new - 1)
        self._chosen_BN[slots_B, at_B] = torch.where(running_B, chosen_B, self._chosen_BN[slots_B, at_B])
        self._logprobs_BN[slots_B, at_B] = torch.where(running_B, logprobs_B, self._logprobs_BN[slots_B, at_B])
        count_B += running_B
        self._latest_B[rows] = chosen_B
        self._rules.advance(chosen_B, rows)
        running_B &= (chosen_B != self._search.tokens.end) & (count_B < self._limit_B[rows])
        if self._repetition is not None:
            running_B &= ~self._repetition.advance(chosen_B, rows) | (count_B < self._max_tokens_B[rows])

    def leave(self) -> list[tuple[int, DecodedTokens]]:
        """Names and results of the rows that are done; the others move together."""
        before = len(self)
        running = self._running_B[:before].tolist()
        results = self._results([row for row, goes_on in enumerate(running) if not goes_on])
        order = self._state.kept_order([row for row, goes_on in enumerate(running) if goes_on])
        moved = torch.tensor(order, dtype=torch.long, device=self._weights.device)
        self._state.keep(order)
        for holder in (self._rules, self._repetition):
            if holder is not None:
                holder.move(moved)
        per_row = (
            self._chosen_BN, self._logprobs_BN, self._count_B, self._limit_B, self._max_tokens_B, self._running_B, self._latest_B,
        )  # fmt: skip
        for each in per_row:
            each[: len(order)] = each[moved]
        self._running_B[len(order) : before] = False
        self._names = [self._names[row] for row in order]
        self._no_speech = [self._no_speech[row] for row in order]
        return results

    def _results(self, rows: Sequence[int]) -> list[tuple[int, DecodedTokens]]:
        counts = self._count_B[: len(self)].tolist()
        chosen, logprobs = self._chosen_BN[rows].tolist(), self._logprobs_BN[rows].tolist()
        results = []
        for row, ids, sums in zip(rows, chosen, logprobs, strict=True):
            count = counts[row]
            is_finished = ids[count - 1] == self._search.tokens.end
            stop = count - is_finished
            decoded = DecodedTokens(
                ids[:stop], sums[:stop], sum(sums[:count]), count, self._no_speech[row], is_finished
            )
            results.append((self._names[row], decoded))
        return results
