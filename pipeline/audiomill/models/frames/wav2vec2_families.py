"""wav2vec 2.0 and the models built like it, as families: convolutions over the waveform, a transformer, maybe a CTC head."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from audiomill.models.base import SpeechModel
from audiomill.models.family import Facts, Family, Loading
from audiomill.models.frames.frame_families import frame_family
from audiomill.models.task import Shape

FBANK_HOP = 320


def relatives(name: str, checkpoints: str, model_types: tuple[str, ...], facts: Facts, **more: Any) -> Family:
    """A family of transformers' models that `audiomill.models.frames.wav2vec2_loading` loads.

    Args:
        name: of the family.
        checkpoints: for people.
        model_types: as config.json names them.
        facts: for people.
        more: other attributes of the family.
    """
    return frame_family(
        name, checkpoints, model_types, _shape, _load, facts, shows_convolutions=_has_convolutions, **more
    )


def _shape(path: Path) -> Shape:
    """Configs hold what differs from the family's defaults, so transformers reads them."""
    from transformers import AutoConfig

    from audiomill.models.codes.codebooks import has_quantizer

    config = AutoConfig.from_pretrained(path)
    hop = prod(config.conv_stride) if hasattr(config, "conv_stride") else FBANK_HOP
    quantizer = (config.num_codevector_groups, config.num_codevectors_per_group) if has_quantizer(path) else None
    depth = config.num_adapter_layers if getattr(config, "add_adapter", False) else 0
    text_hop = hop * config.adapter_stride**depth if depth else hop
    return Shape(
        width=config.hidden_size, num_layers=config.num_hidden_layers, hop=hop, text_hop=text_hop, quantizer=quantizer
    )


def _has_convolutions(path: Path) -> bool:
    from transformers import AutoConfig

    return hasattr(AutoConfig.from_pretrained(path), "conv_stride")


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.frames.wav2vec2_loading import load_frame_model

    config = loading.task.model
    return load_frame_model(
        loading.path,
        loading.device,
        config.precision,
        loading.task.requested,
        loading.quantizers,
        config.trust_remote_code,
        loading.storage_options,
    )
