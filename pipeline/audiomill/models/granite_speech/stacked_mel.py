"""Log-mels beside their slopes, in pairs of frames, of whole batches, each row's as it is alone.

B batch, F mel frames, M mels.
Source: transformers `GraniteSpeech5FeatureExtractor`, which is the oracle; its mels and slopes are torchaudio's, which
needs not be installed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.errors import ModelError
from audiomill.models.frames.fbank import MelFrontEnd, MelSpec, mel_filters
from audiomill.models.granite_speech.halvings import MEL_HOP, STACKED
from audiomill.models.preprocessing_files import extractor_settings

DEFAULTS = {
    "num_mel_bins": 80,
    "n_fft": 512,
    "win_length": 400,
    "hop_length": MEL_HOP,
    "delta_win_length": 3,
    "logmel_floor_db": 8.0,
}
"""What the feature extractor does where its file does not say."""
_POWER_FLOOR = 1e-10
_MIN_SAMPLES = 8 * MEL_HOP
"""Shorter audio leaves no frame behind the halvings."""


class GraniteLogMel:
    """Each row's logarithms are floored below its own loudest, and its slopes end at its own end.

    Args:
        settings: of the feature extractor.
        device: where to compute.
    """

    def __init__(self, settings: dict[str, Any], device: torch.device) -> None:
        self._settings = settings
        spec = MelSpec(
            filters_NM=mel_filters(settings["num_mel_bins"], settings["n_fft"]),
            window=settings["win_length"],
            hop=MEL_HOP,
            num_fft=settings["n_fft"],
            log=lambda power: power.clamp(min=_POWER_FLOOR).log10(),
            is_periodic=True,
            margin="reflect",
            filled=lambda count: max(count, _MIN_SAMPLES, (_num_stacked(max(count, _MIN_SAMPLES)) - 1) * MEL_HOP + 1),
            num_frames=_num_stacked,
        )
        self._mels = MelFrontEnd(spec, device)

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]:
        log_BFM, counts_B, mask_BF = self._mels(rows)
        most = int(counts_B.max())
        log_BFM, mask_BF = log_BFM[:, :most], mask_BF[:, :most]
        log_BFM = log_BFM.masked_fill(~mask_BF[..., None], -torch.inf)
        floor_B11 = log_BFM.amax((1, 2), keepdim=True) - self._settings["logmel_floor_db"]
        log_BFM = torch.maximum(log_BFM, floor_B11).div_(4).add_(1)
        both = torch.cat([log_BFM, self._slopes(log_BFM, counts_B)], -1).masked_fill_(~mask_BF[..., None], 0.0)
        stacked = both.reshape(len(rows), -1, STACKED * both.shape[-1]).float()
        return {"input_features": stacked, "attention_mask": mask_BF[:, ::STACKED].long()}, counts_B // STACKED

    def _slopes(self, log_BFM: Tensor, counts_B: Tensor) -> Tensor:
        """Slope of a line through the frames around each; beyond a row's ends its first and last frame stand."""
        reach = self._settings["delta_win_length"] // 2
        at_F, last_B1 = torch.arange(log_BFM.shape[1], device=log_BFM.device), counts_B[:, None] - 1
        slopes: Tensor = torch.zeros_like(log_BFM)
        for step in range(1, reach + 1):
            ahead, behind = (at_F + step).minimum(last_B1), (at_F - step).clamp(min=0).minimum(last_B1)
            index = (each[..., None].expand_as(log_BFM) for each in (ahead, behind))
            ahead_BFM, behind_BFM = (log_BFM.gather(1, each) for each in index)
            slopes += step * (ahead_BFM - behind_BFM)
        return slopes.div_(reach * (reach + 1) * (2 * reach + 1) / 3)


def _num_stacked(num_samples: int) -> int:
    """Mel frames of a row: whole stacks of them."""
    return STACKED * -(-(num_samples // MEL_HOP) // STACKED)


def granite_features(folder: Path, config: Any, device: torch.device) -> GraniteLogMel:
    """Of a checkpoint's folder.

    Raises:
        ModelError: its frames are not those that the encoder takes.
    """
    settings = {**DEFAULTS, **extractor_settings(folder)}
    if settings["num_mel_bins"] != config.num_mel_bins or settings["hop_length"] != MEL_HOP:
        raise ModelError(
            f"{folder}: features of {settings['num_mel_bins']} mels every {settings['hop_length']} samples; "
            f"the model takes {config.num_mel_bins} every {MEL_HOP}"
        )
    return GraniteLogMel(settings, device)
