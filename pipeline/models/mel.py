"""The log-mel spectrogram of one recording, for pictures. M mels, F frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.models.whisper import LogMel

NUM_MELS = 80


def log_mel_MF(pcm_T: NDArray[np.int16]) -> NDArray[Any]:  # noqa: N802
    """One column per 10 ms, as Whisper computes it."""
    waveform_BT = torch.from_numpy(pcm_T)[None].float() / 32768.0
    padded = torch.nn.functional.pad(waveform_BT, (0, max(0, 800 - waveform_BT.shape[1])))
    found: NDArray[Any] = LogMel(NUM_MELS, torch.device("cpu"))(padded)[0].numpy()
    return found
