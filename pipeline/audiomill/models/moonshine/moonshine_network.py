"""Moonshine as `audiomill.models.seq2seq` and `audiomill.models.frames.encoders` want it.

B batch, T samples, L positions, D width, R part of a head's width that is turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.models.base import SpeechModel
from audiomill.models.family import Loading
from audiomill.models.frames.encoders import EncoderKind, extractor_of
from audiomill.models.matrix_products import fused, projection
from audiomill.models.moonshine.strides import CONVOLUTIONS, MIN_SAMPLES, MOONSHINE_HOP
from audiomill.models.seq2seq.decoder_weights import (
    ApplyRotary,
    DecoderWeights,
    Function,
    decoder_layer,
    num_heads,
    special_tokens,
    tokenizer_in,
)
from audiomill.models.seq2seq.generation import DecoderAdapter
from audiomill.models.seq2seq.model import load_encoder_decoder


class Waveforms:
    """Rows of one length, as they are, or with zero mean and unit variance where the checkpoint says so."""

    def __init__(self, normalises: bool, device: torch.device) -> None:
        self._normalises, self._device = normalises, device

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]:
        least = [np.pad(row.astype(np.float32) / 32768.0, (0, max(0, MIN_SAMPLES - len(row)))) for row in rows]
        if self._normalises:
            least = [(wave - wave.mean()) / np.sqrt(wave.var() + 1e-7) for wave in least]
        values_BT = torch.from_numpy(np.stack(least)).to(self._device)
        lengths_B = torch.full((len(rows),), values_BT.shape[1], device=self._device)
        return {"input_values": values_BT}, lengths_B


def _features(folder: Path, config: Any, device: torch.device) -> Waveforms:
    return Waveforms(bool(extractor_of(folder).do_normalize), device)


def _frames_of(lengths_B: Tensor, config: Any, layer: int | None) -> Tensor:
    for kernel, stride in CONVOLUTIONS:
        lengths_B = (lengths_B - kernel) // stride + 1
    return lengths_B


MOONSHINE_ENCODER = EncoderKind(
    features=_features,
    frames_of=_frames_of,
    body=lambda model: model.model.encoder,
    final_norm=lambda encoder: encoder.layer_norm,
    hop=MOONSHINE_HOP,
)


def moonshine_decoder(model: Any, folder: Path, precision: str) -> DecoderWeights:
    """Of a `MoonshineForConditionalGeneration`.

    Raises:
        ModelError: see `num_heads`.
    """
    decoder, config = model.model.decoder, model.config
    tokens_VD = decoder.embed_tokens.weight.detach()
    apply_rotary = _rotary_embedding(decoder.rotary_emb, config.max_position_embeddings, tokens_VD)
    return DecoderWeights(
        embed=lambda tokens, places: tokens_VD[tokens],
        layers=[decoder_layer(layer, precision, _feed_forward, apply_rotary) for layer in decoder.layers],
        norm=decoder.norm,
        vocabulary=projection(model.proj_out.weight, None, precision),
        num_heads=num_heads(config, folder),
        width=config.hidden_size,
        max_positions=config.max_position_embeddings,
        device=tokens_VD.device,
        dtype=tokens_VD.dtype,
    )


def _feed_forward(mlp: Any, precision: str) -> Function:
    """Half of the inner values are gates of the others."""
    fc1, fc2, act = fused([mlp.fc1], precision), fused([mlp.fc2], precision), mlp.activation_fn

    def run(x_BLD: Tensor) -> Tensor:
        values, failed_checks = fc1(x_BLD).chunk(2, dim=-1)
        return fc2(act(failed_checks) * values)

    return run


def _rotary_embedding(rotary: Any, max_positions: int, like: Tensor) -> ApplyRotary:
    """Rotary positions of neighbouring pairs; the last part of a head's width stays as it is."""
    cos, sin = rotary(like, torch.arange(max_positions, device=like.device)[None])
    cos_PR, sin_PR = (each[0, :, : each.shape[-1] // 2].repeat_interleave(2, dim=-1) for each in (cos, sin))

    def turn(x_BHLE: Tensor, places: Tensor) -> Tensor:
        cosine, sine = cos_PR[places], sin_PR[places]
        if places.ndim == 2:  # each row stands at its own
            cosine, sine = cosine[:, None], sine[:, None]
        turned, rest = x_BHLE[..., : cosine.shape[-1]], x_BHLE[..., cosine.shape[-1] :]
        across = torch.stack((-turned[..., 1::2], turned[..., 0::2]), dim=-1).flatten(-2)
        return torch.cat([turned * cosine + across * sine, rest], dim=-1)

    return lambda q, k, places: (turn(q, places), turn(k, places))


def load_moonshine(loading: Loading) -> SpeechModel:
    """A checkpoint from a local folder. Its group norm looks at whole rows, so each is encoded alone."""

    def writer(model: Any, precision: str) -> DecoderAdapter:
        text, start = loading.task.requested.transcripts, model.config.decoder_start_token_id
        tokenizer = tokenizer_in(loading.path)
        return DecoderAdapter(
            weights=moonshine_decoder(model, loading.path, precision),
            tokens=special_tokens(model, start, model.config.vocab_size),
            decoded=lambda rows: tokenizer.batch_decode(rows, skip_special_tokens=True),
            language=lambda segment: None if text is None else text.language,
            prompt=lambda language: [start],
        )

    return load_encoder_decoder(loading, MOONSHINE_ENCODER, writer)
