"""Parakeet-CTC: FastConformer over log-mels with a CTC head."""

from __future__ import annotations

from audiomill.config.defaults import CONFORMER_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import Facts, Loading
from audiomill.models.fastconformer.frame_clock import fastconformer_shape
from audiomill.models.frames.frame_families import ALONE, OFFERS, frame_family


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.fastconformer.fast_conformer import encoder
    from audiomill.models.frames.encoders import load_encoder

    return load_encoder(loading, encoder(fastconformer_shape(loading.path).hop))


FAMILY = frame_family(
    "parakeet",
    "Parakeet-CTC",
    ("parakeet_ctc", "parakeet_encoder"),
    fastconformer_shape,
    _load,
    Facts(
        examples=("nvidia/parakeet-ctc-0.6b", "nvidia/parakeet-ctc-1.1b"),
        offers=OFFERS,
        exact=ALONE,
        licence="CC-BY-4.0",
    ),
    batch_seconds=CONFORMER_BATCH_S,
    reads_log_mel=True,
)
