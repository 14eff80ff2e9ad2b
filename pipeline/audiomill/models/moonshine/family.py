"""Moonshine: waveform in, text out, as much work as there is audio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.config.defaults import WINDOWS_BATCH_S
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.base import SpeechModel
from audiomill.models.family import CODES, TEXT, VECTORS, Facts, Family, Loading, check_plain
from audiomill.models.frames.frame_families import PRECISIONS
from audiomill.models.moonshine.strides import MOONSHINE_HOP
from audiomill.models.task import Shape


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    return Shape(width=config.hidden_size, num_layers=config.encoder_num_hidden_layers, hop=MOONSHINE_HOP)


def _provides(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((TEXT, VECTORS, CODES))


def _check(path: Path, model: str, text: TranscriptConfig) -> None:
    check_plain(model, text)
    if text.languages is not None:
        raise ModelError(f"--languages: {model} does not look for languages; say --language, which is told in the rows")


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.moonshine.moonshine_network import load_moonshine

    return load_moonshine(loading)


FAMILY = Family(
    name="moonshine",
    checkpoints="Moonshine",
    facts=Facts(
        examples=("UsefulSensors/moonshine-tiny", "UsefulSensors/moonshine-base"),
        offers="text, retries, vectors, codes; word times with a CTC model beside it",
        exact="tokens are those of `generate` alone (a test compares)",
        licence="MIT for English; the checkpoint's own for other languages",
    ),
    recognises=lambda path, settings: settings.get("model_type") == "moonshine",
    gives=_provides,
    shape=_shape,
    check=_check,
    load=_load,
    reads_alone=True,
    batch_seconds=WINDOWS_BATCH_S,
    precisions=PRECISIONS,
)
