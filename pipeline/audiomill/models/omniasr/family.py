"""OmniASR-CTC and its encoder (OmniASR-W2V)."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from audiomill.models.base import SpeechModel
from audiomill.models.family import Facts, Loading
from audiomill.models.frames.frame_families import ALONE, OFFERS, frame_family
from audiomill.models.task import Shape

_WINDOW_S = 40.0
"""Longest audio that it was trained on; longer recordings are read in windows whose frames are joined."""


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    encoder = getattr(config, "audio_config", config)
    hop = prod(encoder.conv_stride)
    return Shape(width=encoder.hidden_size, num_layers=encoder.num_hidden_layers, hop=hop, text_hop=hop)


def _frames_of(lengths_B: Any, config: Any, layer: int | None) -> Any:
    """Frames behind the convolutions; the same for every layer."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        lengths_B = (lengths_B - kernel) // stride + 1
    return lengths_B


def _body(model: Any) -> Any:
    """With a head, without, or the encoder alone."""
    result = getattr(model, "model", model)
    return getattr(result, "audio_tower", result)


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.frames.encoders import EncoderKind, load_encoder
    from audiomill.models.omniasr.normalized import omniasr_features

    kind = EncoderKind(
        features=omniasr_features,
        frames_of=_frames_of,
        body=_body,
        final_norm=lambda encoder: encoder.layer_norm,
        hop=_shape(loading.path).hop,
    )
    return load_encoder(loading, kind)


FAMILY = frame_family(
    "omniasr",
    "OmniASR-CTC, OmniASR-W2V",
    ("omniasr_ctc", "omniasr_audio"),
    _shape,
    _load,
    Facts(
        examples=("hf-audio/omniasr-ctc-300m-v2",),
        offers=OFFERS + "; beyond its 40 s in windows that are joined",
        exact=ALONE,
        licence="Apache-2.0",
        transformers=(5, 24),
    ),
    window_s=_WINDOW_S,
)
