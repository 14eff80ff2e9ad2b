"""wav2vec's objective: which of several frames is the one that comes k steps later.

B batch, C channels, F frames, K steps, N negatives. Sources: arXiv:1904.05862, section 2.2; fairseq's
`Wav2VecPredictionsModel` for the names of tensors, and for negatives that belong to the frame that is told from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_STEPS = 12
"""K: frames ahead that are told, from 1 on."""
NEGATIVES = 10
"""N: the sum over them has as much weight as the frame itself, which is the paper's lambda of as many."""


class Predictor(nn.Module):
    """h_k(c): for each of K steps an affine map of the context, all in one transposed convolution.

    Args:
        context_width: of c.
        width: of z.
    """

    def __init__(self, context_width: int, width: int) -> None:
        super().__init__()
        self.project_to_steps = nn.ConvTranspose2d(context_width, width, (1, _STEPS))

    def forward(self, c_BCF: Tensor) -> Tensor:
        """h_BCFK."""
        out: Tensor = self.project_to_steps(c_BCF[..., None])
        return out


class PredictionLoss(NamedTuple):
    """Sums over a batch: loss (nats), pairs of a frame and a step, and how many of them were told from all negatives."""

    loss: Tensor
    num_pairs: int
    num_right: int


def drawn_negatives(num_frames: Sequence[int], random: np.random.Generator) -> NDArray[np.int64]:
    """For each frame of each row, N other frames of that row, drawn uniformly; index_BFN, 0 behind a row's end.

    Args:
        num_frames: of each row, at least 2.
        random: where chance comes from.
    """
    index_BFN = np.zeros((len(num_frames), max(num_frames), NEGATIVES), np.int64)
    for row, frames in enumerate(num_frames):
        drawn = random.integers(0, frames - 1, (frames, NEGATIVES))
        index_BFN[row, :frames] = drawn + (drawn >= np.arange(frames)[:, None])
    return index_BFN


def contrastive(h_BCFK: Tensor, z_BCF: Tensor, frames_B: Tensor, negatives_BFN: Tensor) -> PredictionLoss:
    """Binary cross-entropy of z_{i+k} against its negatives, given h_k(c_i), for every i and k that a row has.

    Args:
        h_BCFK: see `Predictor`.
        z_BCF: frames that are told, those of the quantiser where there is one.
        frames_B: of each row.
        negatives_BFN: see `drawn_negatives`.
    """
    batch, channels, frames = z_BCF.shape
    index = negatives_BFN.flatten(1)[:, None].expand(-1, channels, -1)
    others_BCFN = z_BCF.gather(2, index).view(batch, channels, frames, -1)
    at_F = torch.arange(frames, device=z_BCF.device)
    loss, pairs, right = z_BCF.new_zeros((), dtype=torch.float32), 0, 0
    for step in range(1, min(h_BCFK.shape[-1], frames - 1) + 1):
        said_BCF = h_BCFK[:, :, :-step, step - 1]
        is_there_BF = at_F[step:] < frames_B[:, None]
        true_BF = (said_BCF * z_BCF[:, :, step:]).sum(1).float()
        false_BFN = torch.einsum("bcf,bcfn->bfn", said_BCF, others_BCFN[:, :, step:]).float()
        loss_BF = nn.functional.softplus(-true_BF) + nn.functional.softplus(false_BFN).sum(-1)
        loss = loss + loss_BF.masked_fill(~is_there_BF, 0.0).sum()
        pairs += int(is_there_BF.sum())
        right += int(((true_BF > false_BFN.amax(-1)) & is_there_BF).sum())
    return PredictionLoss(loss, pairs, right)
