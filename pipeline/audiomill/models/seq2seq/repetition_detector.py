"""The repetition detector of a decoder.

B rows, N latest tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_LOOP_TOKENS, MAX_LOOPS, MIN_LOOPED_TOKENS = 16, 3, 8
"""A loop: up to 16 tokens that come three times more, and at least 8 tokens repeated."""


class RepetitionDetector:
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

    def open(self, rows: slice) -> None:
        """New texts begin in these rows."""
        self._latest_BN[rows], self._equal_BN[rows] = -1, 0

    def advance(self, chosen_B: Tensor, rows: slice) -> Tensor:
        """Takes the tokens of a step for some rows; returns which of them loop."""
        token_B1 = chosen_B.clamp(max=self._first_timestamp)[:, None]
        equal_BN = torch.where(self._latest_BN[rows] == token_B1, self._equal_BN[rows] + 1, 0)
        self._equal_BN[rows] = equal_BN
        self._latest_BN[rows] = torch.cat([self._latest_BN[rows, 1:], token_B1], dim=1)
        return (equal_BN >= self._limit_N).any(-1)

    def move(self, rows: Tensor) -> None:
        """Row n goes on as row `rows[n]`."""
        self._latest_BN[: len(rows)], self._equal_BN[: len(rows)] = self._latest_BN[rows], self._equal_BN[rows]
