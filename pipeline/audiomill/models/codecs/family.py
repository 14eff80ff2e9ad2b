"""EnCodec, DAC, Mimi, X-codec, X-codec2 and NeuCodec: codes of a codec's own quantizers, a row a codebook, at its own rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.audio.clock import Form
from audiomill.config.defaults import FRAMES_BATCH_S
from audiomill.models.base import SpeechModel
from audiomill.models.family import CODES, Facts, Family, Loading, Resynthesizer, always, of_type
from audiomill.models.task import Shape

WHOLE_S = {"dac": 10_800.0, "encodec": 10_800.0, "mimi": 10_800.0}
"""Codecs whose encoders go through long recordings in windows that change nothing, and how long those may be."""
_MODEL_TYPES = ("dac", "encodec", "mimi", "neucodec", "xcodec", "xcodec2")


def _shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    rate = int(_first(config, "input_sampling_rate", "sampling_rate", "sample_rate"))
    levels = getattr(config, "quantization_levels", None)
    quantizer = (
        (1, math.prod(levels))
        if levels
        else (int(_first(config, "n_codebooks", "num_quantizers")), int(config.codebook_size))
    )
    hop = int(_first(config, "encoder_hop_length", "hop_length", "frame_size"))
    frames_a_hop = 1
    if getattr(config, "chunk_length", None) is not None:  # chunks overlap, so frames are closer than their step
        hop, frames_a_hop = config.chunk_stride, -(-config.chunk_length // hop)
    return Shape(
        width=0,
        num_layers=-1,
        hop=hop,
        frames_a_hop=frames_a_hop,
        quantizer=quantizer,
        form=Form(rate, int(getattr(config, "audio_channels", None) or 1)),
    )


def _first(config: Any, *names: str) -> Any:
    """The value of the first name that a configuration has."""
    return next(value for name in names if (value := getattr(config, name, None)) is not None)


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.codecs.codec_model import load_codec

    return load_codec(loading, _shape(loading.path))


def _resynthesizer(path: Path, device: str) -> Resynthesizer:
    from audiomill.models.codecs.decoding import load_decoder

    return load_decoder(path, _shape(path), device)


def _whole_s(settings: Mapping[str, Any]) -> float | None:
    return WHOLE_S.get(str(settings.get("model_type")))


FAMILY = Family(
    name="codecs",
    checkpoints="EnCodec, DAC, Mimi, X-codec, X-codec2 and NeuCodec",
    facts=Facts(
        examples=(
            "facebook/encodec_24khz",
            "facebook/encodec_48khz",
            "descript/dac_44khz",
            "kyutai/mimi",
            "hf-audio/xcodec-hubert-librispeech",
            "HKUSTAudio/xcodec2",
            "neuphonic/neucodec",
        ),
        offers="codes, a row a codebook, at the codec's own rate and channels",
        exact="rows go alone: codes are those of transformers' `encode`, batch size 1 (a test compares); hours of audio go through "
        "EnCodec, DAC and Mimi in windows that give the codes of one piece",
        licence="the checkpoint's own",
        transformers=(5, 24),
    ),
    recognises=of_type(*_MODEL_TYPES),
    gives=always(CODES),
    shape=_shape,
    load=_load,
    batch_seconds=FRAMES_BATCH_S,
    precisions={"cpu": ("fp32",), "cuda": ("fp32",)},
    quantizes_itself=True,
    whole_s=_whole_s,
    resynthesizer=_resynthesizer,
)
