"""FastConformer as `audiomill.models.frames.encoders` wants it (arXiv:2305.05084)."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.models.frames.encoders import EncoderKind, Features, extractor_of
from audiomill.models.frames.fbank import MelFrontEnd, MelSpec, standardized

LOG_GUARD, DEVIATION_GUARD = 2.0**-24, 1e-5
_MIN_FRAMES = 2
"""The variance of one frame divides by zero."""


def nemo_log_mels(extractor: Any, device: torch.device) -> Features:
    """Pre-emphasis, centred windows, slaney mels, logarithm; each mel with zero mean and unit variance over the row's own frames.

    Args:
        extractor: transformers' own, for its settings.
        device: where to compute.
    """
    hop = extractor.hop_length
    spec = MelSpec(
        filters_NM=extractor.mel_filters.double().T,
        window=extractor.win_length,
        hop=hop,
        num_fft=extractor.n_fft,
        log=lambda power: (power + LOG_GUARD).log(),
        margin="constant",
        preemphasis=extractor.preemphasis or 0.0,
        filled=lambda num_samples: max(num_samples, _MIN_FRAMES * hop),
        num_frames=lambda num_samples: num_samples // hop,
    )
    mels = MelFrontEnd(spec, device)

    def features(rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]:
        mel_BFM, counts_B, mask_BF = mels(rows)
        normed = standardized(mel_BFM, counts_B, mask_BF, lambda variance: variance.sqrt() + DEVIATION_GUARD, 0.0)
        return {"input_features": normed, "attention_mask": mask_BF}, counts_B

    return features


def nemo_features(folder: Path, config: Any, device: torch.device) -> Features:
    """Of a checkpoint's folder."""
    return nemo_log_mels(extractor_of(folder), device)


def _frames_of(lengths_B: Tensor, config: Any, layer: int | None) -> Tensor:
    """Frames behind the convolutions that halve the features' rate; the same for every layer."""
    kernel, stride = config.subsampling_conv_kernel_size, config.subsampling_conv_stride
    for _ in range(int(log2(config.subsampling_factor))):
        lengths_B = (lengths_B + 2 * ((kernel - 1) // 2) - kernel) // stride + 1
    return lengths_B


def encoder(hop: int) -> EncoderKind:
    """With so many samples from one frame to the next."""
    return EncoderKind(
        features=nemo_features, frames_of=_frames_of, body=lambda model: getattr(model, "encoder", model), hop=hop
    )
