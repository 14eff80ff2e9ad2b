"""Log-mel features as LASR takes them: windows that lie whole inside the audio.

Source: transformers `LasrFeatureExtractor`, which is the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.models.frames.encoders import Features, extractor_of
from audiomill.models.frames.fbank import MelFrontEnd, MelSpec

_POWER_FLOOR = 1e-5


def lasr_features(folder: Path, config: Any, device: torch.device) -> Features:
    """Of a checkpoint's folder."""
    extractor, kernel = extractor_of(folder), config.subsampling_conv_kernel_size
    window, hop = extractor.win_length, extractor.hop_length
    min_frames = kernel + config.subsampling_conv_stride * (kernel - 1)  # that the encoder's convolutions need
    spec = MelSpec(
        filters_NM=extractor.mel_filters,
        window=window,
        hop=hop,
        num_fft=extractor.n_fft,
        log=lambda power: power.clamp(min=_POWER_FLOOR).log(),
        filled=lambda num_samples: max(num_samples, window + (min_frames - 1) * hop),
        num_frames=lambda num_samples: (num_samples - window) // hop + 1,
    )
    mels = MelFrontEnd(spec, device)

    def features(rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]:
        mel_BFM, counts_B, mask_BF = mels(rows)
        return {"input_features": mel_BFM.float(), "attention_mask": mask_BF}, counts_B

    return features
