"""Whisper's encoder on less than its window. B batch, M mels, F frames, D width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def encode_short(encoder: Any, mel_BMF: Tensor) -> Tensor:
    """Whisper's encoder on any length up to its window: hidden_BFD with half as many frames as `mel_BMF`.

    Hugging Face's own forward pass takes whole windows only; on those it gives the same.
    """
    x = torch.nn.functional.gelu(encoder.conv1(mel_BMF))
    x = torch.nn.functional.gelu(encoder.conv2(x)).transpose(1, 2)
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    for layer in encoder.layers:
        out = layer(x, None)
        x = out[0] if isinstance(out, tuple) else out
    hidden: Tensor = encoder.layer_norm(x)
    return hidden
