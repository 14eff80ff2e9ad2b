"""Decoding, greedy or sampled: rows come, take a token at every step, and leave when they are done.

Slots of rows that are done are filled with rows that wait, so that steps stay wide (continuous batching). What a row
gets does not depend on which rows are beside it.

B rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from audiomill.models.seq2seq.decode_slots import DecodedTokens, DecodeRequest, DecodeSlots
from audiomill.models.watchdog import heartbeat

REFILL_SHARE = 0.25
"""Rows that are done leave when they make up this share of the slots in use: moving the others costs too."""
STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 8}
"""On a GPU each look at which rows are done waits for it."""


@torch.inference_mode()
def decode(
    table: DecodeSlots,
    next_entry: Callable[[int, int | None], DecodeRequest | None],
    done: Callable[[int, DecodedTokens], None],
) -> None:
    """Decodes until no row is left.

    Args:
        table: empty.
        next_entry: gives rows that wait, at most as many as it is told and of as many frames as it is told (None: any);
            None if none of them waits now. It is asked again when rows have left, so what is `done` may bring new ones.
        done: takes the name and the result of each row.
    """
    between = STEPS_BETWEEN_LOOKS[table.device.type]
    while True:
        while len(table) < table.capacity and (entry := next_entry(table.capacity - len(table), table.frames)):
            table.admit(entry)
        if not len(table):
            return
        while table.num_running > (1 - REFILL_SHARE) * len(table):
            table.step(between)
            heartbeat()
        for name, decoded in table.leave():
            done(name, decoded)
