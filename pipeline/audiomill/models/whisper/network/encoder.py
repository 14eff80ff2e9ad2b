"""Whisper's encoder on any length up to its window. B batch, M mels, F frames, D width, H heads, E width of a head."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor

from audiomill.models.whisper.network.weights import EncoderLayer, EncoderWeights

SCORES_IN_CACHE, FRAMES_IN_CACHE = 1_000_000, 250
"""What is computed at once on CPU, so that it stays in the caches: attention scores, frames of the wide layers."""


def run_encoder(weights: EncoderWeights, mel_BMF: Tensor, hidden_states: Collection[int] = ()) -> dict[int, Tensor]:
    """Hidden states with half as many frames as `mel_BMF`.

    Args:
        weights: the encoder's.
        mel_BMF: log-mel, any even number of frames up to the window.
        hidden_states: hidden states wanted beside the last one, numbered as Hugging Face's `hidden_states`.

    Returns:
        hidden_BFD by number; the last one is behind the final norm.
    """
    x = F.gelu(weights.conv1(_three_frames(mel_BMF.transpose(1, 2), 1)))
    x = F.gelu(weights.conv2(_three_frames(x, 2)))
    x = x + weights.positions_FD[: x.shape[1]]
    result = {0: x} if 0 in hidden_states else {}
    for number, layer in enumerate(weights.layers, 1):
        x = _layer(weights, layer, x)
        if number in hidden_states and number < len(weights.layers):
            result[number] = x
    return {**result, len(weights.layers): weights.norm(x)}


def _three_frames(x_BFD: Tensor, step: int) -> Tensor:
    """Every `step`-th frame between its neighbours, side by side; zeros beyond the edges."""
    frames = x_BFD.shape[1]
    padded = F.pad(x_BFD, (0, 0, 1, 1))
    return torch.cat([padded[:, shift : shift + frames : step] for shift in range(3)], dim=-1)


def _layer(weights: EncoderWeights, layer: EncoderLayer, x_BFD: Tensor) -> Tensor:
    batch, frames, width = x_BFD.shape
    qkv = layer.qkv(layer.attention_norm(x_BFD)).view(batch, frames, 3, weights.num_heads, -1).permute(2, 0, 3, 1, 4)
    attended = (
        _half_attention(qkv) if weights.has_half_attention else F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
    )
    x = x_BFD + layer.out(attended.transpose(1, 2).reshape(batch, frames, width).to(x_BFD.dtype))
    if x.device.type != "cpu":
        return x + _feed_forward(layer, x)
    return x + torch.cat([_feed_forward(layer, part) for part in torch.split(x, FRAMES_IN_CACHE, dim=1)], dim=1)


def _feed_forward(layer: EncoderLayer, x_BFD: Tensor) -> Tensor:
    return layer.fc2(F.gelu(layer.fc1(layer.norm(x_BFD))))


def _half_attention(qkv_3BHFE: Tensor) -> Tensor:
    """Attention with products in bf16, for CPUs, whose fused kernel gains nothing from bf16 (2.2 times as fast)."""
    _, batch, heads, frames, width = qkv_3BHFE.shape
    halves = qkv_3BHFE.to(torch.bfloat16, memory_format=torch.contiguous_format)
    q, k, v = halves.view(3, batch * heads, frames, width).unbind(0)
    q = q * width**-0.5
    size = max(64, SCORES_IN_CACHE // (len(q) * frames))
    rows = [torch.bmm(torch.bmm(part, k.transpose(1, 2)).softmax(-1), v) for part in torch.split(q, size, dim=1)]
    return torch.cat(rows, dim=1).view(batch, heads, frames, width)
