"""Kaldi log-mel features of whole batches, as wav2vec2-BERT and SeamlessM4T take them.

B batch, T samples, F mel frames, M mels, W samples a frame.
Source: Kaldi `compute-fbank-feats` with a Povey window; transformers `SeamlessM4TFeatureExtractor` is the oracle.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.frames.exact import frame_mask

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
