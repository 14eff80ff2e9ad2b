"""Log-mel features as LASR takes them, of whole batches, each row's as it is alone.

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

from audiomill.models.frames.encoders import extractor_of
from audiomill.models.frames.fbank import own_frames, powers, waveforms, with_margins

_POWER_FLOOR = 1e-5


class LasrLogMel:
    """Windows that lie whole inside the audio, mels, logarithm.

    Args:
        extractor: transformers' own, for its settings.
        min_frames: that the encoder's convolutions need.
        device: where to compute.
    """

    def __init__(self, extractor: Any, min_frames: int, device: torch.device) -> None:
        self._extractor, self._device = extractor, device
        self._window = torch.hann_window(extractor.win_length, periodic=False, dtype=torch.float64, device=device)
        self._filters_NM = extractor.mel_filters.double().to(device)
        self._min_samples = extractor.win_length + (min_frames - 1) * extractor.hop_length

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]:
        window, hop = self._extractor.win_length, self._extractor.hop_length
        waves = [np.pad(row, (0, max(0, self._min_samples - len(row)))) for row in waveforms(rows)]
        samples_BT = with_margins(waves, 0, "constant", self._device)
        mel_BFM = powers(samples_BT, self._window, hop, self._extractor.n_fft) @ self._filters_NM
        counts_B, mask_BF = own_frames([(len(w) - window) // hop + 1 for w in waves], mel_BFM.shape[1], self._device)
        return {"input_features": mel_BFM.clamp_(min=_POWER_FLOOR).log_().float(), "attention_mask": mask_BF}, counts_B


def lasr_features(folder: Path, config: Any, device: torch.device) -> LasrLogMel:
    """Of a checkpoint's folder."""
    kernel, stride = config.subsampling_conv_kernel_size, config.subsampling_conv_stride
    return LasrLogMel(extractor_of(folder), kernel + stride * (kernel - 1), device)
