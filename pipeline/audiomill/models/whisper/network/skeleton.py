"""Whisper's weights under transformers' names, without its code: importing that takes three seconds of a run's start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from audiomill.models.whisper.network.dimensions import Dimensions

KERNEL = 3
"""Frames that a convolution sees."""
TIED = {"proj_out.weight": "model.decoder.embed_tokens.weight"}
"""The decoder's words are read and written with the same matrix."""


class Skeleton(nn.Module):
    """What `audiomill.models.whisper.network.weights` takes of a `WhisperForConditionalGeneration`.

    Args:
        config: its sizes.
        weights: float32, by the names of transformers; the tied one may be missing.

    Raises:
        KeyError: a weight is missing, too many, or of another shape.
    """

    def __init__(self, config: Dimensions, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        width, ends = config.d_model, config.vocab_size
        with torch.device("meta"):  # nothing is filled with random numbers
            self.model = nn.Module()
            self.model.encoder = encoder = nn.Module()
            encoder.conv1 = nn.Conv1d(config.num_mel_bins, width, KERNEL, padding=1)
            encoder.conv2 = nn.Conv1d(width, width, KERNEL, stride=2, padding=1)
            encoder.embed_positions = _table(config.max_source_positions, width)
            layers = [_layer(width, config.encoder_ffn_dim) for _ in range(config.encoder_layers)]
            encoder.layers, encoder.layer_norm = nn.ModuleList(layers), nn.LayerNorm(width)
            encoder.config = cast(Any, config)
            self.model.decoder = decoder = nn.Module()
            decoder.embed_tokens = _table(ends, width)
            decoder.embed_positions = _table(config.max_target_positions, width)
            layers = [_layer(width, config.decoder_ffn_dim, has_cross=True) for _ in range(config.decoder_layers)]
            decoder.layers, decoder.layer_norm = nn.ModuleList(layers), nn.LayerNorm(width)
            self.proj_out = nn.Linear(width, ends, bias=False)
        self._take(weights)

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        whole = {**{name: weights[other] for name, other in TIED.items() if other in weights}, **weights}
        wanted = self.state_dict()
        unlike = {name for name in wanted.keys() & whole.keys() if wanted[name].shape != whole[name].shape}
        if wrong := sorted(unlike | (wanted.keys() ^ whole.keys())):
            raise KeyError(wrong[0])
        self.load_state_dict(whole, assign=True)
        self.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.proj_out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.proj_out.weight.dtype


def _table(rows: int, width: int) -> nn.Module:
    """Not an `nn.Embedding`: making one imports torch's compiler."""
    table = nn.Module()
    table.weight = nn.Parameter(torch.empty(rows, width))
    return table


def _layer(width: int, inner: int, has_cross: bool = False) -> nn.Module:
    layer = nn.Module()
    layer.self_attn, layer.self_attn_layer_norm = _attention(width), nn.LayerNorm(width)
    if has_cross:
        layer.encoder_attn, layer.encoder_attn_layer_norm = _attention(width), nn.LayerNorm(width)
    layer.fc1, layer.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
    layer.final_layer_norm = nn.LayerNorm(width)
    return layer


def _attention(width: int) -> nn.Module:
    attention = nn.Module()
    attention.q_proj, attention.k_proj = nn.Linear(width, width), nn.Linear(width, width, bias=False)
    attention.v_proj, attention.out_proj = nn.Linear(width, width), nn.Linear(width, width)
    return attention
