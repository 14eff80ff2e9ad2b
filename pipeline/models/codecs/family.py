"""X-codec, X-codec2, NeuCodec and DAC: codes of a codec's own quantizers, a row a codebook. EnCodec and Mimi hear 24 kHz."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.defaults import FRAMES_BATCH_S
from audiomill.errors import ModelError
from audiomill.models.base import SpeechModel
from audiomill.models.family import CODES, Facts, Family, Loading
from audiomill.models.shape import Shape

MODEL_TYPES = ("dac", "encodec", "mimi", "neucodec", "xcodec", "xcodec2")


def _gives(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((CODES,))


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    rate = _first(config, "input_sampling_rate", "sampling_rate", "sample_rate")
    if rate != MODEL_SAMPLE_RATE:
        raise ModelError(
            f"{path}: this codec hears {rate} Hz, and models are given {MODEL_SAMPLE_RATE} Hz here; take one of 16 kHz, such as "
            "hf-audio/xcodec-hubert-librispeech, HKUSTAudio/xcodec2, neuphonic/neucodec or descript/dac_16khz"
        )
    levels = getattr(config, "quantization_levels", None)
    quantizer = (
        (1, math.prod(levels))
        if levels
        else (int(_first(config, "n_codebooks", "num_quantizers")), int(config.codebook_size))
    )
    hop = int(_first(config, "encoder_hop_length", "hop_length"))
    return Shape(width=0, num_layers=-1, hop=hop, quantizer=quantizer)


def _first(config: Any, *names: str) -> Any:
    """The value of the first name that a configuration has."""
    return next(value for name in names if (value := getattr(config, name, None)) is not None)


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.codecs.codec_model import load_codec

    return load_codec(loading, _shape(loading.path).hop)


FAMILY = Family(
    name="codecs",
    checkpoints="X-codec, X-codec2, NeuCodec and DAC of 16 kHz",
    facts=Facts(
        examples=(
            "hf-audio/xcodec-hubert-librispeech",
            "HKUSTAudio/xcodec2",
            "neuphonic/neucodec",
            "descript/dac_16khz",
        ),
        offers="codes, a row a codebook",
        exact="rows go alone: codes are those of transformers' `encode`, batch size 1 (a test compares)",
        licence="the checkpoint's own",
        transformers=(5, 24),
    ),
    recognises=lambda path, settings: settings.get("model_type") in MODEL_TYPES,
    gives=_gives,
    shape=_shape,
    load=_load,
    batch_seconds=FRAMES_BATCH_S,
    precisions={"cpu": ("fp32",), "cuda": ("fp32",)},
    quantizes_itself=True,
)
