"""The rules on which token may follow which, for a whole batch at once.

B batch, V vocabulary.
Rules on timestamps as in openai/whisper decoding.py::ApplyTimestampRules and Hugging Face's WhisperTimeStampLogitsProcessor,
which the tests compare with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiomill.models.seq2seq.special_tokens import SpecialTokens

_NEVER = float("-inf")


class TokenRules:
    """Which tokens are allowed next, and which of them is the most probable; state of a table of decoder rows.

    Args:
        tokens: special tokens.
        num_rows: B.
        timestamps: whether timestamp tokens are decoded.
        device: of the logits.
    """

    def __init__(self, tokens: SpecialTokens, num_rows: int, timestamps: bool, device: torch.device) -> None:
        self._tokens, self._timestamps = tokens, timestamps
        never = [token for token in tokens.suppress if token < tokens.size]
        never += [tokens.first_timestamp - 1] if timestamps else []  # what says that there will be none
        self._never = torch.tensor(sorted(set(never)), dtype=torch.long, device=device)
        begin = [token for token in tokens.begin_suppress if token < tokens.size]
        self._begin_V = torch.zeros(tokens.size, dtype=torch.bool, device=device)
        self._begin_V[begin] = True
        self._ids_V = torch.arange(tokens.size, device=device)
        # Of the tokens so far: is there none, is the last a timestamp, is the one before it (or is there none), the
        # latest timestamp.
        self._is_first_B = torch.ones(num_rows, dtype=torch.bool, device=device)
        self._last_is_stamp_B = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self._before_is_stamp_B = torch.ones(num_rows, dtype=torch.bool, device=device)
        self._latest_B = torch.full((num_rows,), tokens.first_timestamp - 1, device=device)

    def open(self, rows: slice) -> None:
        """New texts begin in these rows."""
        self._is_first_B[rows], self._last_is_stamp_B[rows], self._before_is_stamp_B[rows] = True, False, True
        self._latest_B[rows] = self._tokens.first_timestamp - 1

    def mask(self, logits_BV: Tensor, rows: slice) -> Tensor:
        """Logits of some rows with forbidden tokens at minus infinity."""
        logits = logits_BV.float().index_fill(1, self._never, _NEVER)
        first_B1 = self._is_first_B[rows, None]
        logits = logits.masked_fill(first_B1 & self._begin_V, _NEVER)
        return self._mask_timestamps(logits, rows) if self._timestamps else logits

    def _mask_timestamps(self, logits_BV: Tensor, rows: slice) -> Tensor:
        tokens, ids = self._tokens, self._ids_V
        is_stamp = ids >= tokens.first_timestamp
        first_B1, last_B1 = self._is_first_B[rows, None], self._last_is_stamp_B[rows, None]
        forbidden_BV = first_B1 & (~is_stamp | (ids > tokens.first_timestamp + tokens.max_initial_timestamp))
        forbidden_BV |= last_B1 & ~self._before_is_stamp_B[rows, None] & (ids < tokens.end)
        forbidden_BV |= is_stamp & (ids < self._first_allowed_stamp(rows)[:, None])
        logits = logits_BV.masked_fill(forbidden_BV, _NEVER)
        stamp_mass = logits[:, tokens.first_timestamp :].logsumexp(-1)
        best_text = logits[:, : tokens.first_timestamp].amax(-1)
        return logits.masked_fill((stamp_mass > best_text)[:, None] & ~is_stamp, _NEVER)

    def _first_allowed_stamp(self, rows: slice) -> Tensor:
        """After a pair of stamps comes text; after text and a stamp comes its twin, or the end; stamps do not fall."""
        last_B, before_B = self._last_is_stamp_B[rows], self._before_is_stamp_B[rows]
        floor_B = self._latest_B[rows] + torch.where(last_B & ~before_B, 0, 1)
        return torch.where(last_B & before_B, self._tokens.size, floor_B)

    def most_probable(self, logits_BV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """The allowed token with the highest probability, and its log-probability among the allowed ones.

        The same as the maximum of `mask`, for rows behind their first token, in fewer passes over the vocabulary.
        Overwrites `logits_BV`.
        """
        logits, first = logits_BV.float().index_fill_(1, self._never, _NEVER), self._tokens.first_timestamp
        if not self._timestamps:
            best, chosen_B = logits.max(-1)
            return chosen_B, best - _mass(logits, best, chosen_B)
        text_BV, stamps_BV = logits[:, :first], logits[:, first:]
        floor_B1 = self._first_allowed_stamp(rows)[:, None] - first
        stamps_BV = stamps_BV.masked_fill(self._ids_V[: stamps_BV.shape[1]] < floor_B1, _NEVER)
        best_text, text_B = text_BV.max(-1)
        text_mass = _mass(text_BV, best_text, text_B)
        # After text and a stamp: its twin or the end, no text.
        closes_B = self._last_is_stamp_B[rows] & ~self._before_is_stamp_B[rows]
        end_B, end_at = text_BV[:, self._tokens.end :].max(-1)
        text_mass = torch.where(closes_B, text_BV[:, self._tokens.end :].logsumexp(-1), text_mass)
        best_text = torch.where(closes_B, end_B, best_text)
        text_B = torch.where(closes_B, end_at + self._tokens.end, text_B)
        best_stamp, stamp_B = stamps_BV.max(-1)
        stamp_mass = stamps_BV.logsumexp(-1)
        is_stamp_B = (stamp_mass > best_text) | (best_stamp > best_text)
        chosen_B = torch.where(is_stamp_B, stamp_B + first, text_B)
        mass_B = torch.where(stamp_mass > best_text, stamp_mass, torch.logaddexp(stamp_mass, text_mass))
        return chosen_B, torch.where(is_stamp_B, best_stamp, best_text) - mass_B

    def advance(self, chosen_B: Tensor, rows: slice) -> None:
        """Takes note of the tokens that were chosen for some rows."""
        stamp_B = chosen_B >= self._tokens.first_timestamp
        self._before_is_stamp_B[rows] = self._last_is_stamp_B[rows] | self._is_first_B[rows]
        self._last_is_stamp_B[rows] = stamp_B
        self._latest_B[rows] = torch.where(stamp_B, chosen_B, self._latest_B[rows])
        self._is_first_B[rows] = False

    def move(self, rows: Tensor) -> None:
        """Row n goes on as row `rows[n]`."""
        for state in (self._is_first_B, self._last_is_stamp_B, self._before_is_stamp_B, self._latest_B):
            state[: len(rows)] = state[rows]


def _mass(logits_BV: Tensor, best_B: Tensor, best_at_B: Tensor) -> Tensor:
    """The logarithm of the sum of exponentials, by way of `log_softmax`, which needs fewer passes than `logsumexp`."""
    return best_B - logits_BV.log_softmax(-1).gather(1, best_at_B[:, None])[:, 0]
