"""Normalised waveforms as OmniASR takes them, of whole batches, each row's as it is alone.

Source: transformers `OmniASRFeatureExtractor`, which is the oracle.
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
from audiomill.models.frames.fbank import own_frames, waveforms, with_margins
from audiomill.models.task import receptive_field

VARIANCE_GUARD = 1e-5


class NormalizedWaveforms:
    """Zero mean and unit variance over each row's own samples, where the checkpoint wants them."""

    def __init__(self, normalizes: bool, min_samples: int, device: torch.device) -> None:
        self._normalizes, self._min_samples, self._device = normalizes, min_samples, device

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]:
        waves = [np.pad(row, (0, max(0, self._min_samples - len(row)))) for row in waveforms(rows)]
        if self._normalizes:
            waves = [(wave - wave.mean()) / np.sqrt(wave.var() + VARIANCE_GUARD) for wave in waves]
        samples_BT = with_margins(waves, 0, "constant", self._device).float()
        counts_B, mask_BT = own_frames([len(wave) for wave in waves], samples_BT.shape[1], self._device)
        return {"input_values": samples_BT[:, None], "padding_mask": mask_BT.long()}, counts_B


def omniasr_features(folder: Path, config: Any, device: torch.device) -> NormalizedWaveforms:
    """Of a checkpoint's folder."""
    return NormalizedWaveforms(bool(extractor_of(folder).do_normalize), receptive_field(config), device)
