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
from transformers.audio_utils import mel_filter_bank

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.errors import ModelError
from audiomill.models.frames.fbank import centred_window, own_frames, powers, waveforms, with_margins
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
        self._settings, self._device = settings, device
        window = torch.hann_window(settings["win_length"], dtype=torch.float64, device=device)
        self._window = centred_window(window, settings["n_fft"])
        filters = mel_filter_bank(
            num_frequency_bins=settings["n_fft"] // 2 + 1,
            num_mel_filters=settings["num_mel_bins"],
            min_frequency=0.0,
            max_frequency=MODEL_SAMPLE_RATE / 2,
            sampling_rate=MODEL_SAMPLE_RATE,
            norm=None,
            mel_scale="htk",
        )
        self._filters_NM = torch.from_numpy(np.asarray(filters, np.float64)).to(device)

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> tuple[dict[str, Tensor], Tensor]:
        num_fft = self._settings["n_fft"]
        waves = [np.pad(row, (0, max(0, _MIN_SAMPLES - len(row)))) for row in waveforms(rows)]
        pairs = [-(-(len(wave) // MEL_HOP) // STACKED) for wave in waves]
        whole = [
            np.pad(w, (0, max(0, (STACKED * n - 1) * MEL_HOP + 1 - len(w)))) for w, n in zip(waves, pairs, strict=True)
        ]
        samples_BT = with_margins(whole, num_fft // 2, "reflect", self._device)
        mel_BFM = powers(samples_BT, self._window, MEL_HOP, num_fft)[:, : STACKED * max(pairs)] @ self._filters_NM
        counts_B, mask_BF = own_frames([STACKED * count for count in pairs], mel_BFM.shape[1], self._device)
        log_BFM = mel_BFM.clamp_(min=_POWER_FLOOR).log10_().masked_fill_(~mask_BF[..., None], -torch.inf)
        floor_B11 = log_BFM.amax((1, 2), keepdim=True) - self._settings["logmel_floor_db"]
        log_BFM = torch.maximum(log_BFM, floor_B11).div_(4).add_(1)
        both = torch.cat([log_BFM, self._slopes(log_BFM, counts_B)], -1).masked_fill_(~mask_BF[..., None], 0.0)
        stacked = both.reshape(len(rows), -1, STACKED * both.shape[-1]).float()
        num_pairs_B, mask = own_frames(pairs, stacked.shape[1], self._device)
        return {"input_features": stacked, "attention_mask": mask.long()}, num_pairs_B

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
