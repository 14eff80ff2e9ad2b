"""LASR (MedASR): a conformer with rotary positions, 40 ms a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiomill.config.defaults import CONFORMER_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import Facts, Loading
from audiomill.models.frames.frame_families import ALONE, OFFERS, frame_family
from audiomill.models.task import Shape

MEL_HOP, HALVINGS = 160, 2


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    encoder = getattr(config, "encoder_config", config)
    hop = MEL_HOP * encoder.subsampling_conv_stride**HALVINGS
    return Shape(width=encoder.hidden_size, num_layers=encoder.num_hidden_layers, hop=hop, text_hop=hop)


def _frames_of(lengths_B: Any, config: Any, layer: int | None) -> Any:
    """Frames behind the convolutions; the same for every layer."""
    for _ in range(HALVINGS):
        lengths_B = (lengths_B - config.subsampling_conv_kernel_size) // config.subsampling_conv_stride + 1
    return lengths_B


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.frames.encoders import EncoderKind, load_encoder
    from audiomill.models.lasr.lasr_mel import lasr_features

    kind = EncoderKind(
        features=lasr_features,
        frames_of=_frames_of,
        body=lambda model: getattr(model, "encoder", model),
        final_norm=lambda encoder: encoder.out_norm,
        hop=_shape(loading.path).hop,
    )
    return load_encoder(loading, kind)


FAMILY = frame_family(
    "lasr",
    "LASR (MedASR)",
    ("lasr_ctc", "lasr_encoder"),
    _shape,
    _load,
    Facts(examples=("google/medasr",), offers=OFFERS, exact=ALONE, licence="Health AI Developer Foundations terms"),
    batch_seconds=CONFORMER_BATCH_S,
    reads_log_mel=True,
)
