"""How the quantizers of vq-wav2vec learn.

B batch, C channels, F frames, K codebooks, V entries. Sources: arXiv:1910.05453, sections 3.1 and 3.2; the diversity loss
is wav2vec 2.0's (arXiv:2006.11477, equation 4), which keeps Gumbel codebooks in use.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
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
