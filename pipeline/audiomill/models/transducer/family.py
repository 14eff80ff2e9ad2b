"""Parakeet-TDT and Parakeet-RNNT: FastConformer with a prediction network; a TDT also says how long each token lasts."""

from __future__ import annotations

from audiomill.config.defaults import CONFORMER_BATCH_S
from audiomill.models.family import CODES, TEXT, VECTORS, Facts, Family, Late, always, of_type
from audiomill.models.fastconformer.frame_clock import fastconformer_shape
from audiomill.models.frames.frame_families import PRECISIONS

_MODEL_TYPES = ("parakeet_tdt", "parakeet_rnnt")


FAMILY = Family(
    name="transducer",
    checkpoints="Parakeet-TDT, Parakeet-RNNT",
    facts=Facts(
        examples=("nvidia/parakeet-tdt-0.6b-v2", "nvidia/parakeet-tdt-0.6b-v3", "nvidia/parakeet-rnnt-0.6b"),
        offers="text, word times (a TDT's last as long as it says), vectors, codes",
        exact="tokens and frames are those of `generate` alone (a test compares); a TDT writes 10 tokens at most at one frame, as in NeMo",
        licence="CC-BY-4.0",
        transformers=(5, 13),
    ),
    recognises=of_type(*_MODEL_TYPES),
    gives=always(TEXT, VECTORS, CODES),
    shape=fastconformer_shape,
    load=Late("audiomill.models.transducer.model:load_transducer"),
    reads_alone=True,
    batch_seconds=CONFORMER_BATCH_S,
    precisions=PRECISIONS,
    reads_log_mel=True,
)
