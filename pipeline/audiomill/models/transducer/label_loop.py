"""Greedy decoding of transducers, of whole batches: every row walks along its own frames and leaves when they end.

B batch, F frames, D width, V vocabulary, A rows that are still under way, L layers of the prediction network.
Source: Graves 2012, "Sequence Transduction with Recurrent Neural Networks" (arXiv:1211.3711); durations: Xu et al. 2023,
"Efficient Sequence Transduction by Jointly Predicting Tokens and Durations" (arXiv:2304.06795), algorithm 2. The limit of
labels at one frame is NeMo's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Labels(NamedTuple):
    """What a row wrote: tokens_N, the frame at which each was written, and how many frames it lasts; log-probabilities are
    natural. `path_logprob`: of all decisions, blanks included."""

    tokens_N: NDArray[np.int32]
    frames_N: NDArray[np.int32]
    lasting_N: NDArray[np.int32]
    logprobs_N: NDArray[np.float32]
    path_logprob: float

    @property
    def symbols(self) -> NDArray[np.int32]:
        return np.concatenate([self.tokens_N, self.frames_N])

    @property
    def probabilities(self) -> NDArray[np.float32]:
        return np.exp(self.logprobs_N)


class _Step(NamedTuple):
    """One decision of some rows, each a value a row. `moves`: frames that it goes on."""

    rows_A: Tensor
    tokens_A: Tensor
    frames_A: Tensor
    moves_A: Tensor
    logprobs_A: Tensor


class LabelLoop:
    """The prediction and the joint network of a transducer.

    Args:
        model: `ParakeetForTDT` or `ParakeetForRNNT` of transformers.
    """

    def __init__(self, model: Any) -> None:
        self._decoder, self._joint, config = model.decoder, model.joint, model.config
        self._blank, self._size = config.blank_token_id, config.vocab_size
        self._max_symbols = config.max_symbols_per_step
        durations = getattr(config, "durations", None)
        self._durations = None if durations is None else torch.tensor(list(durations), device=model.device)

    def __call__(self, encoded_BFD: Tensor, frames_B: Tensor) -> list[Labels]:
        """Labels of each row.

        Args:
            encoded_BFD: projected frames.
            frames_B: of each row.
        """
        num_rows = len(encoded_BFD)
        rows_A = torch.arange(num_rows, device=encoded_BFD.device)[frames_B > 0]
        at_B, written_B = torch.zeros_like(frames_B), torch.zeros_like(frames_B)
        labels_BD, state = self._initial_state(num_rows, encoded_BFD)
        steps: list[_Step] = []
        while len(rows_A):
            joint_AV = self._joint(labels_BD[rows_A], encoded_BFD[rows_A, at_B[rows_A]]).float()
            logprobs_AV = joint_AV[:, : self._size].log_softmax(-1)
            logprobs_A, tokens_A = logprobs_AV.max(-1)
            is_label_A = tokens_A != self._blank
            written_A = torch.where(is_label_A, written_B[rows_A] + 1, 0)
            moves_A = self._moves(joint_AV, is_label_A, written_A)
            steps.append(_Step(rows_A, tokens_A, at_B[rows_A], self._lasting(moves_A, is_label_A), logprobs_A))
            at_B[rows_A] += moves_A
            written_B[rows_A] = torch.where(moves_A > 0, 0, written_A)
            self._advance(rows_A[is_label_A], tokens_A[is_label_A], labels_BD, state)
            rows_A = rows_A[at_B[rows_A] < frames_B[rows_A]]
        return _by_row(steps, num_rows, self._blank)

    def _initial_state(self, num_rows: int, like: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What the prediction network says before any label, and its state: the same for all rows."""
        start = torch.tensor([[self._blank]], device=like.device)
        out, (hidden, cell) = self._decoder.lstm(self._decoder.embedding(start))
        labels_BD = self._decoder.decoder_projector(out)[:, 0].repeat(num_rows, 1)
        return labels_BD, (hidden.repeat(1, num_rows, 1), cell.repeat(1, num_rows, 1))

    def _moves(self, joint_AV: Tensor, is_label_A: Tensor, written_A: Tensor) -> Tensor:
        """Frames that each row goes on. A blank goes on at least one; so does what has written too much at one frame."""
        if self._durations is None:
            moves_A = (~is_label_A).long()
        else:
            moves_A = self._durations[joint_AV[:, self._size :].argmax(-1)]
            moves_A = torch.where(is_label_A, moves_A, moves_A.clamp(min=1))
        return torch.where(written_A >= self._max_symbols, moves_A.clamp(min=1), moves_A)

    def _lasting(self, moves_A: Tensor, is_label_A: Tensor) -> Tensor:
        """Frames that labels last: as predicted, else one."""
        return torch.ones_like(moves_A) if self._durations is None else moves_A.where(is_label_A, 0)

    def _advance(self, rows_N: Tensor, tokens_N: Tensor, labels_BD: Tensor, state: tuple[Tensor, Tensor]) -> None:
        """The prediction network of some rows goes on by a label, in place."""
        if not len(rows_N):
            return
        before = (state[0][:, rows_N].contiguous(), state[1][:, rows_N].contiguous())
        out, after = self._decoder.lstm(self._decoder.embedding(tokens_N[:, None]), before)
        labels_BD[rows_N] = self._decoder.decoder_projector(out)[:, 0]
        for whole, part in zip(state, after, strict=True):
            whole[:, rows_N] = part


def _by_row(steps: list[_Step], num_rows: int, blank: int) -> list[Labels]:
    """Decisions in turn -> what each row wrote."""
    if not steps:
        nothing = np.zeros(0, np.int32)
        return [Labels(nothing, nothing, nothing, nothing.astype(np.float32), 0.0)] * num_rows
    rows, tokens, frames, lasting, logprobs = (torch.cat(column).cpu().numpy() for column in zip(*steps, strict=True))
    results = []
    for row in range(num_rows):
        mine = rows == row
        emitted = mine & (tokens != blank)
        written, at, lasts = (each[emitted].astype(np.int32) for each in (tokens, frames, lasting))
        results.append(Labels(written, at, lasts, logprobs[emitted], float(logprobs[mine].sum())))
    return results
