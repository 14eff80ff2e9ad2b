"""Granite Speech 5 TurboCTC: a conformer in blocks of attention, 80 ms a frame."""

from __future__ import annotations

from pathlib import Path

from audiomill.config.defaults import CONFORMER_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import Facts, Loading
from audiomill.models.frames.frame_families import ALONE, OFFERS, frame_family
from audiomill.models.granite_speech.halvings import hops
from audiomill.models.task import Shape


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    encoder = getattr(config, "encoder_config", config)
    every = hops(encoder)
    differing = {layer: hop for layer, hop in enumerate(every) if hop != every[-1]}
    return Shape(
        width=encoder.hidden_size,
        num_layers=encoder.num_hidden_layers,
        hop=every[-1],
        text_hop=every[-1],
        hops=differing,
    )


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.frames.encoders import EncoderKind, load_encoder
    from audiomill.models.granite_speech.stacked_mel import granite_features

    result = _shape(loading.path)
    kind = EncoderKind(
        features=granite_features,
        frames_of=lambda lengths_B, config, layer: (
            lengths_B // (hops(config)[-1 if layer is None else layer] // hops(config)[0])
        ),
        body=lambda model: getattr(model, "encoder", model),
        hop=result.hop,
        hops=result.hops,
    )
    return load_encoder(loading, kind)


FAMILY = frame_family(
    "granite_speech",
    "Granite Speech 5 TurboCTC",
    ("granite_speech5_ctc", "granite_speech5_encoder"),
    _shape,
    _load,
    Facts(
        examples=("ibm-granite/granite-speech-5.0-470m-turboctc",),
        offers=OFFERS,
        exact=ALONE,
        licence="Apache-2.0",
        transformers=(5, 16),
    ),
    batch_seconds=CONFORMER_BATCH_S,
    reads_log_mel=True,
)
