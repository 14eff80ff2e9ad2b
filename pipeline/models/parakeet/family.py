"""Parakeet-CTC: FastConformer over log-mels with a CTC head."""

from __future__ import annotations

from pathlib import Path

from audiomill.models.base import SpeechModel
from audiomill.models.family import Loading
from audiomill.models.frames.frame_families import frame_family
from audiomill.models.shape import Shape

MEL_HOP = 160


def shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    encoder = getattr(config, "encoder_config", config)
    hop = MEL_HOP * encoder.subsampling_factor
    return Shape(width=encoder.hidden_size, num_layers=encoder.num_hidden_layers, hop=hop, text_hop=hop)


def load(loading: Loading) -> SpeechModel:
    from audiomill.models.fastconformer.fast_conformer import encoder
    from audiomill.models.frames.encoders import load_encoder

    return load_encoder(loading, encoder(shape(loading.path).hop))


FAMILY = frame_family("parakeet", "Parakeet-CTC", ("parakeet_ctc", "parakeet_encoder"), shape, load, reads_log_mel=True)
