"""Greedy decoding: rows come, take a token at every step, and leave when they are done.

Slots of rows that are done are filled with rows that wait, so that steps stay wide (continuous batching). What a row
gets does not depend on which rows are beside it.

B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch

from audiomill.models.seq2seq.decode_slots import DecodedTokens, DecodeRequest, DecodeSlots
from audiomill.models.watchdog import heartbeat

REFILL_SHARE = 0.25
"""Rows that are done leave when they make up this share of the slots in use: moving the others costs too."""
STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 8}
"""On a GPU each look at which rows are done waits for it."""


class RowSource(Protocol):
    """Rows that wait to be decoded, and what becomes of them."""

    def next_entry(self, most: int, frames: int | None = None) -> DecodeRequest | None:
        """Rows that wait, at most so many and of so many frames (None: any); None if none of them waits now. It is asked
        again when rows have left, so what is `done` may bring new ones."""
        ...

    def done(self, name: int, decoded: DecodedTokens) -> None:
        """Takes the result of a row."""
        ...


@torch.inference_mode()
def decode_rows(
    rows: RowSource,
    num_beams: int,
    most: int,
    slots: Callable[[int], DecodeSlots],
    beam_search: Callable[[DecodeRequest], Iterable[tuple[int, DecodedTokens]]],
) -> None:
    """Decodes until no row is left: greedily in slots, or by beam search, a request at a time.

    Args:
        rows: that wait.
        num_beams: 1: no beam search.
        most: rows that may be decoded at a time.
        slots: empty ones, for so many rows.
        beam_search: names and results of the rows of a request.
    """
    if num_beams == 1:
        decode(slots(most), rows)
        return
    while (entry := rows.next_entry(max(1, most // num_beams))) is not None:
        for name, decoded in beam_search(entry):
            rows.done(name, decoded)


@torch.inference_mode()
def decode(table: DecodeSlots, rows: RowSource) -> None:
    """Decodes in slots, which are empty at first, until no row is left."""
    between = STEPS_BETWEEN_LOOKS[table.device.type]
    while True:
        while len(table) < table.capacity and (entry := rows.next_entry(table.capacity - len(table), table.frames)):
            table.admit(entry)
        if not len(table):
            return
        while table.num_running > (1 - REFILL_SHARE) * len(table):
            table.step(between)
            heartbeat()
        for name, decoded in table.leave():
            rows.done(name, decoded)
