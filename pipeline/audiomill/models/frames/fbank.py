"""Kaldi log-mel features of whole batches, as wav2vec2-BERT and SeamlessM4T take them.

B batch, T samples, F mel frames, M mels, W samples a frame.
Source: Kaldi `compute-fbank-feats` with a Povey window; transformers `SeamlessM4TFeatureExtractor` is the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.frames.exact import frame_mask


def waveforms(rows: Sequence[NDArray[np.int16]]) -> list[NDArray[np.float64]]:
    """Samples from -1 to 1."""
    return [row.astype(np.float64) / 32768.0 for row in rows]


def with_margins(rows: Sequence[NDArray[np.float64]], margin: int, mode: str, device: torch.device) -> Tensor:
    """Rows side by side, samples_BT, zeros behind; each with a margin on both sides of its own, as an STFT that centres
    its windows has it.

    Args:
        rows: of any lengths.
        margin: samples on each side.
        mode: what is in it, see `numpy.pad`: "constant" or "reflect".
        device: where to put them.
    """
    padded = [np.pad(row, margin, mode=mode) for row in rows]  # type: ignore[call-overload]
    samples_BT = np.zeros((len(rows), max(map(len, padded))))
    for number, row in enumerate(padded):
        samples_BT[number, : len(row)] = row
    return torch.from_numpy(samples_BT).to(device)


def powers(samples_BT: Tensor, window_W: Tensor, hop: int, num_fft: int) -> Tensor:
    """power_BFN of windows that start at every `hop` samples."""
    frames_BFW = samples_BT.unfold(-1, len(window_W), hop)
    power_BFN: Tensor = torch.fft.rfft(frames_BFW * window_W, num_fft).abs().square()
    return power_BFN


def centred_window(window_W: Tensor, num_fft: int) -> Tensor:
    """Zeros on both sides up to `num_fft` samples, as `torch.stft` does it."""
    before = (num_fft - len(window_W)) // 2
    return torch.nn.functional.pad(window_W, (before, num_fft - len(window_W) - before))


def own_frames(lengths_B: Sequence[int], num_frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """counts_B and mask_BF: True inside each row's own frames."""
    counts_B = torch.tensor(lengths_B, device=device)
    return counts_B, torch.arange(num_frames, device=device) < counts_B[:, None]


WINDOW_SAMPLES, HOP_SAMPLES, NUM_FFT = 400, 160, 512
PREEMPHASIS, MEL_FLOOR, LOWEST_HZ = 0.97, 1.192092955078125e-07, 20.0


def num_mel_frames(num_samples_B: Tensor) -> Tensor:
    """Frames that fit whole into each row."""
    return 1 + (num_samples_B - WINDOW_SAMPLES) // HOP_SAMPLES


class KaldiFbank:
    """Log-mel frames, each mel with zero mean and unit variance over the row's own frames.

    Sums are in double: the logarithm of weak bands shows the rounding of strong ones otherwise.

    Args:
        num_mels: M.
        padding: value behind a row's end.
        device: where to compute.
    """

    def __init__(self, num_mels: int, padding: float, device: torch.device) -> None:
        filters = mel_filter_bank(
            num_frequency_bins=NUM_FFT // 2 + 1,
            num_mel_filters=num_mels,
            min_frequency=LOWEST_HZ,
            max_frequency=MODEL_SAMPLE_RATE / 2,
            sampling_rate=MODEL_SAMPLE_RATE,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        self._filters = torch.from_numpy(np.asarray(filters, np.float64)).to(device)
        self._window = torch.hann_window(WINDOW_SAMPLES, periodic=False, dtype=torch.float64, device=device) ** 0.85
        self.padding = padding

    def __call__(self, pcm_BT: Tensor, num_samples_B: Tensor) -> Tensor:
        """Int16-valued samples -> mel_BFM."""
        mel_BFM = self.log_mels(pcm_BT)
        frames_B = num_mel_frames(num_samples_B)
        mask_BF1 = frame_mask(frames_B, mel_BFM.shape[1])[..., None]
        count_B11 = frames_B[:, None, None]
        mean = (mel_BFM * mask_BF1).sum(1, keepdim=True) / count_B11
        centred = mel_BFM - mean
        variance = (centred.square() * mask_BF1).sum(1, keepdim=True) / (count_B11 - 1)
        normed: Tensor = centred / (variance + 1e-7).sqrt()
        return normed.masked_fill(~mask_BF1, self.padding).float()

    def log_mels(self, wave_BT: Tensor) -> Tensor:
        """Log-mels as they are: mel_BFM in double, of rows without padding."""
        frames_BFW = wave_BT.double().unfold(-1, WINDOW_SAMPLES, HOP_SAMPLES)
        frames_BFW = frames_BFW - frames_BFW.mean(-1, keepdim=True)
        before = torch.cat([frames_BFW[..., :1], frames_BFW[..., :-1]], dim=-1)
        power = torch.fft.rfft((frames_BFW - PREEMPHASIS * before) * self._window, NUM_FFT).abs().square()
        out: Tensor = (power @ self._filters).clamp(min=MEL_FLOOR).log()
        return out
