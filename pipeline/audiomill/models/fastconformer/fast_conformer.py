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

from audiomill.models.frames.encoders import Encoder, extractor_of
from audiomill.models.frames.fbank import centred_window, own_frames, powers, waveforms, with_margins

LOG_GUARD, DEVIATION_GUARD = 2.0**-24, 1e-5
_MIN_FRAMES = 2
"""The variance of one frame divides by zero."""


class NemoLogMel:
    """Pre-emphasis, centred windows, slaney mels, logarithm; each mel with zero mean and unit variance over the row's own frames.

    Args:
        extractor: transformers' own, for its settings.
        device: where to compute.
    """

    def __init__(self, extractor: Any, device: torch.device) -> None:
        self._extractor, self._device = extractor, device
        window = torch.hann_window(extractor.win_length, periodic=False, dtype=torch.float64, device=device)
        self._window = centred_window(window, extractor.n_fft)
        self._filters_NM = extractor.mel_filters.double().T.to(device)

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]:
        hop, num_fft = self._extractor.hop_length, self._extractor.n_fft
        least = _MIN_FRAMES * hop
        waves = [self._emphasised(np.pad(row, (0, max(0, least - len(row))))) for row in waveforms(rows)]
        samples_BT = with_margins(waves, num_fft // 2, "constant", self._device)
        mel_BFM = (powers(samples_BT, self._window, hop, num_fft) @ self._filters_NM + LOG_GUARD).log()
        counts_B, mask_BF = own_frames([len(wave) // hop for wave in waves], mel_BFM.shape[1], self._device)
        mask_BF1, count_B11 = mask_BF[..., None], counts_B[:, None, None]
        centred = mel_BFM - (mel_BFM * mask_BF1).sum(1, keepdim=True) / count_B11
        variance = (centred.square() * mask_BF1).sum(1, keepdim=True) / (count_B11 - 1)
        normed = (centred / (variance.sqrt() + DEVIATION_GUARD)).masked_fill(~mask_BF1, 0.0)
        return {"input_features": normed.float(), "attention_mask": mask_BF}, counts_B

    def _emphasised(self, wave: NDArray[np.float64]) -> NDArray[np.float64]:
        share = self._extractor.preemphasis
        return wave if share is None else np.concatenate([wave[:1], wave[1:] - share * wave[:-1]])


def nemo_features(folder: Path, config: Any, device: torch.device) -> NemoLogMel:
    """Of a checkpoint's folder."""
    return NemoLogMel(extractor_of(folder), device)


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
