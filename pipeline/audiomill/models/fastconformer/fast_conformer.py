"""FastConformer as `audiomill.models.frames.encoders` wants it (arXiv:2305.05084)."""

from __future__ import annotations

from math import log2
from typing import Any

from torch import Tensor

from audiomill.models.fastconformer.nemo_mel import nemo_features
from audiomill.models.frames.encoders import Encoder


def _frames_of(lengths_B: Tensor, config: Any, layer: int | None) -> Tensor:
    """Frames behind the convolutions that halve the features' rate; the same for every layer."""
    kernel, stride = config.subsampling_conv_kernel_size, config.subsampling_conv_stride
    for _ in range(int(log2(config.subsampling_factor))):
        lengths_B = (lengths_B + 2 * ((kernel - 1) // 2) - kernel) // stride + 1
    return lengths_B


def encoder(hop: int) -> Encoder:
    """With so many samples from one frame to the next."""
    return Encoder(
        features=nemo_features, frames_of=_frames_of, body=lambda model: getattr(model, "encoder", model), hop=hop
    )
