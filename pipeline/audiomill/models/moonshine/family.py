"""Moonshine: waveform in, text out, as much work as there is audio."""

from __future__ import annotations

from pathlib import Path

from audiomill.config.defaults import WINDOWS_BATCH_S
from audiomill.models.family import CODES, TEXT, VECTORS, Facts, Family, Late, always, check_one_language, of_type
from audiomill.models.frames.frame_families import PRECISIONS
from audiomill.models.moonshine.strides import MOONSHINE_HOP
from audiomill.models.task import Shape


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    return Shape(width=config.hidden_size, num_layers=config.encoder_num_hidden_layers, hop=MOONSHINE_HOP)


FAMILY = Family(
    name="moonshine",
    checkpoints="Moonshine",
    facts=Facts(
        examples=("UsefulSensors/moonshine-tiny", "UsefulSensors/moonshine-base"),
        offers="text, retries, vectors, codes; word times with a CTC model beside it",
        exact="tokens are those of `generate` alone (a test compares)",
        licence="MIT for English; the checkpoint's own for other languages",
    ),
    recognises=of_type("moonshine"),
    gives=always(TEXT, VECTORS, CODES),
    shape=_shape,
    check=check_one_language,
    load=Late("audiomill.models.moonshine.moonshine_network:load_moonshine"),
    reads_alone=True,
    batch_seconds=WINDOWS_BATCH_S,
    precisions=PRECISIONS,
)
