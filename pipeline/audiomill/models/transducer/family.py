"""Parakeet-TDT and Parakeet-RNNT: FastConformer with a prediction network; a TDT also says how long each token lasts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.config.defaults import CONFORMER_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import CODES, TEXT, VECTORS, Facts, Family, Loading
from audiomill.models.fastconformer.frame_clock import fastconformer_shape
from audiomill.models.frames.frame_families import PRECISIONS

_MODEL_TYPES = ("parakeet_tdt", "parakeet_rnnt")


def _provides(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((TEXT, VECTORS, CODES))


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.transducer.model import load_transducer

    return load_transducer(loading)


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
    recognises=lambda path, settings: settings.get("model_type") in _MODEL_TYPES,
    gives=_provides,
    shape=fastconformer_shape,
    load=_load,
    reads_alone=True,
    batch_seconds=CONFORMER_BATCH_S,
    precisions=PRECISIONS,
    reads_log_mel=True,
)
