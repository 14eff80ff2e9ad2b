"""Canary's decoder as `audiomill.models.seq2seq` wants it. D width, P positions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from audiomill.models.projection import fused, projection
from audiomill.models.seq2seq.decoder_weights import DecoderWeights, Function
from audiomill.models.seq2seq.hf_decoder_layers import decoder_layer, num_heads


def canary_decoder(model: Any, folder: Path, precision: str) -> DecoderWeights:
    """Of a `CanaryForConditionalGeneration`.

    Raises:
        ModelError: see `num_heads`.
    """
    decoder, config = model.model.decoder, model.config.decoder_config
    tokens_VD, norm = decoder.embed_tokens.weight.detach(), decoder.embedding_layernorm
    waves_PD = (decoder.pos_emb.positional_embedding / math.sqrt(config.hidden_size)).to(tokens_VD)
    return DecoderWeights(
        embed=lambda tokens, places: norm(tokens_VD[tokens] + waves_PD[places]),
        layers=[decoder_layer(layer, precision, _feed_forward) for layer in decoder.layers],
        norm=decoder.norm,
        vocabulary=projection(model.proj_out.weight, model.proj_out.bias, precision),
        num_heads=num_heads(config, folder),
        width=config.hidden_size,
        max_positions=config.max_position_embeddings,
        device=tokens_VD.device,
        dtype=tokens_VD.dtype,
    )


def _feed_forward(mlp: Any, precision: str) -> Function:
    fc1, fc2, act = fused([mlp.fc1], precision), fused([mlp.fc2], precision), mlp.activation_fn

    def run(x_BLD: Tensor) -> Tensor:
        return fc2(act(fc1(x_BLD)))

    return run
