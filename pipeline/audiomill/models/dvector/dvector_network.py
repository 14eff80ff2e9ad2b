"""Mel spectra -> the mean of the vectors of stretches of 1.6 s. B batch, T samples, F frames, M mels, D width.

Source: arXiv:1710.10467 (GE2E); Resemblyzer (Apache-2.0), whose names the tensors have. Its voice activity and its levelling
are left to the stages before.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.frames.mel import slaney_filters
from audiomill.models.restricted_unpickler import checkpoint_tensors, loaded_into
from audiomill.models.speakers.embedder import FULL_SCALE, SpeakerEmbedder

NUM_MELS, NUM_FFT, HOP_SAMPLES = 40, 400, 160
_STRETCH = 160
"""Frames."""
STEP = round(MODEL_SAMPLE_RATE / 1.3 / HOP_SAMPLES)
LEAST_COVERAGE = 0.75
TARGET_RMS = 10 ** (-30 / 20)
"""-30 dB of full scale: quieter rows are raised to it."""


class GE2E(nn.Module):
    """mel_BFM of one stretch -> vector_BD of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(NUM_MELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mel_BFM: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mel_BFM)
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=1)


def starts_of(num_samples: int) -> list[int]:
    """First frames of the stretches of a row; the last one may reach beyond its end."""
    num_frames = -(-(num_samples + 1) // HOP_SAMPLES)
    starts = list(range(0, max(1, num_frames - _STRETCH + STEP + 1), STEP))
    coverage = (num_samples - starts[-1] * HOP_SAMPLES) / (_STRETCH * HOP_SAMPLES)
    return starts[:-1] if coverage < LEAST_COVERAGE and len(starts) > 1 else starts


def load_dvector(path: Path, device: str, root: str) -> SpeakerEmbedder:
    """Of a file or folder; `root`: name of the tensor that the model begins with.

    Raises:
        ModelError: tensors are missing or do not fit.
    """
    network = loaded_into(GE2E(), checkpoint_tensors(path, root), path).to(device)
    filters = torch.from_numpy(slaney_filters(NUM_MELS).T.copy()).to(device)
    window = torch.hann_window(NUM_FFT, device=device)

    def forward(pcm_BT: Tensor) -> Tensor:
        wave_BT = pcm_BT.float() / FULL_SCALE
        level = wave_BT.double().square().mean(1, keepdim=True).sqrt().float()
        wave_BT = wave_BT * (TARGET_RMS / level.clamp(min=1e-9)).clamp(min=1.0)
        starts = starts_of(wave_BT.shape[1])
        missing = (starts[-1] + _STRETCH) * HOP_SAMPLES - wave_BT.shape[1]
        wave_BT = nn.functional.pad(wave_BT, (0, max(0, missing)))
        spectrum = torch.stft(wave_BT, NUM_FFT, HOP_SAMPLES, window=window, pad_mode="constant", return_complex=True)
        mel_BFM = (filters @ spectrum.abs().square()).transpose(1, 2)
        vectors = [network(mel_BFM[:, start : start + _STRETCH]) for start in starts]
        return nn.functional.normalize(torch.stack(vectors).mean(0), dim=1)

    return SpeakerEmbedder(forward, 256, NUM_FFT, torch.device(device))
