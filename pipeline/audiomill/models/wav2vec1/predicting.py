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

from audiomill.models.frames.exact import frame_mask
from audiomill.models.wav2vec1.network import GumbelQuantizer, KmeansQuantizer

MAX_TEMPERATURE, MIN_TEMPERATURE = 2.0, 0.5
COMMITMENT = 0.25
"""gamma: how strongly the encoder is held to the entries that it chose."""
DIVERSITY = 0.1


class Quantized(NamedTuple):
    """`q_BCF`: chosen entries, through which gradients pass; `loss`: of the quantizer, a mean; `perplexity`: as many equally
    frequent entries of all codebooks together would tell as much."""

    q_BCF: Tensor
    loss: Tensor
    perplexity: float


def temperature(share: float) -> float:
    """Of Gumbel's softmax, when a share of the updates is done: from 2 down to 0.5, evenly in its logarithm."""
    return float(MAX_TEMPERATURE * (MIN_TEMPERATURE / MAX_TEMPERATURE) ** share)


def quantize_features(quantizer: nn.Module, z_BCF: Tensor, frames_B: Tensor, heat: float) -> Quantized:
    """What the quantizer makes of z while it learns.

    Args:
        quantizer: of the model.
        z_BCF: from the encoder.
        frames_B: of each row.
        heat: temperature of Gumbel's softmax.
    """
    if isinstance(quantizer, GumbelQuantizer):
        return _by_gumbel(quantizer, z_BCF, frames_B, heat)
    assert isinstance(quantizer, KmeansQuantizer), "there are two kinds"
    return _by_kmeans(quantizer, z_BCF, frames_B)


def _by_gumbel(quantizer: GumbelQuantizer, z_BCF: Tensor, frames_B: Tensor, heat: float) -> Quantized:
    logits_BFKV = quantizer.logits(z_BCF).float()
    mask_BF = frame_mask(frames_B, z_BCF.shape[2])
    hard_BFKV = nn.functional.gumbel_softmax(logits_BFKV, tau=heat, hard=True)
    likely_KV = logits_BFKV.softmax(-1)[mask_BF].mean(0)
    entropy_K = -(likely_KV * (likely_KV + 1e-7).log()).sum(-1)
    size = likely_KV.numel()
    loss = DIVERSITY * (size - entropy_K.exp().sum()) / size
    codes_NK = logits_BFKV.detach()[mask_BF].argmax(-1)
    return Quantized(quantizer.chosen(hard_BFKV), loss, _perplexity(codes_NK, likely_KV.shape[1]))


def _by_kmeans(quantizer: KmeansQuantizer, z_BCF: Tensor, frames_B: Tensor) -> Quantized:
    projected_BCF = quantizer.projected(z_BCF, frames_B)
    codes_BFK, q_BCF = quantizer.nearest(projected_BCF)
    mask_BF = frame_mask(frames_B, z_BCF.shape[2])
    ours, theirs = (each.float().transpose(1, 2)[mask_BF] for each in (projected_BCF, q_BCF))
    loss = nn.functional.mse_loss(theirs, ours.detach()) + COMMITMENT * nn.functional.mse_loss(ours, theirs.detach())
    through_BCF = projected_BCF + (q_BCF - projected_BCF).detach()
    return Quantized(through_BCF, loss, _perplexity(codes_BFK[mask_BF], quantizer.num_entries))


def _perplexity(codes_NK: Tensor, num_entries: int) -> float:
    total = 0.0
    for codes_N in codes_NK.T:
        share_V = torch.bincount(codes_N, minlength=num_entries).double() / len(codes_N)
        total += float(torch.exp(-(share_V * (share_V + 1e-12).log()).sum()))
    return total


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
        context_BCF = h_BCFK[:, :, :-step, step - 1]
        is_there_BF = at_F[step:] < frames_B[:, None]
        true_BF = (context_BCF * z_BCF[:, :, step:]).sum(1).float()
        false_BFN = torch.einsum("bcf,bcfn->bfn", context_BCF, others_BCFN[:, :, step:]).float()
        loss_BF = nn.functional.softplus(-true_BF) + nn.functional.softplus(false_BFN).sum(-1)
        loss = loss + loss_BF.masked_fill(~is_there_BF, 0.0).sum()
        pairs += int(is_there_BF.sum())
        right += int(((true_BF > false_BFN.amax(-1)) & is_there_BF).sum())
    return PredictionLoss(loss, pairs, right)
