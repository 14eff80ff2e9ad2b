"""Log-mel spectrograms as Whisper takes them: whole batches on the device, or one recording for pictures.

B batch, T samples, M mels, F frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE

NUM_FFT, HOP_SAMPLES = 400, 160
NUM_MELS_SHOWN = 80
LINEAR_UNTIL_HZ, HZ_A_MEL, LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27


def slaney_filters(num_mels: int, num_fft: int = NUM_FFT) -> NDArray[np.float32]:
    """filters_NM of N frequencies of a transform: triangles of equal area, evenly spaced below 1 kHz and logarithmically above.

    Source: Slaney 1998, Auditory Toolbox, as in librosa and `transformers.audio_utils.mel_filter_bank`, which a test compares
    with; importing the latter takes a second of a run's start.
    """
    nyquist = MODEL_SAMPLE_RATE / 2
    top = LINEAR_UNTIL_HZ / HZ_A_MEL + np.log(nyquist / LINEAR_UNTIL_HZ) / LOG_STEP
    mels = np.linspace(0.0, top, num_mels + 2)
    above = LINEAR_UNTIL_HZ * np.exp(LOG_STEP * (mels - LINEAR_UNTIL_HZ / HZ_A_MEL))
    edges = np.where(mels * HZ_A_MEL < LINEAR_UNTIL_HZ, mels * HZ_A_MEL, above)
    slopes_NE = edges - np.fft.rfftfreq(num_fft, 1 / MODEL_SAMPLE_RATE)[:, None]
    widths = np.diff(edges)
    rising, falling = -slopes_NE[:, :-2] / widths[:-1], slopes_NE[:, 2:] / widths[1:]
    triangles_NM = np.maximum(0.0, np.minimum(rising, falling))
    result: NDArray[np.float32] = (triangles_NM * 2.0 / (edges[2:] - edges[:-2])).astype(np.float32)
    return result


class LogMel:
    """Log-mel spectrogram of whole batches on the model's device, as Whisper was trained on.

    Source: arXiv:2212.04356 section 2.2; floor and scale as openai/whisper audio.py.
    """

    def __init__(self, num_mels: int, device: torch.device) -> None:
        self._filters = torch.from_numpy(slaney_filters(num_mels)).to(device)
        self._window = torch.hann_window(NUM_FFT, device=device)

    def __call__(self, waveform_BT: Tensor) -> Tensor:
        """Float32 waveforms at 16 kHz -> mel_BMF with one column per 10 ms."""
        spectrum = torch.stft(waveform_BT, NUM_FFT, HOP_SAMPLES, window=self._window, return_complex=True)
        power = spectrum[..., :-1].abs() ** 2
        log_mel = (self._filters.T @ power).clamp(min=1e-10).log10()
        floor = log_mel.amax(dim=(1, 2), keepdim=True) - 8.0
        return (torch.maximum(log_mel, floor) + 4.0) / 4.0


def log_mel_MF(pcm_T: NDArray[np.int16]) -> NDArray[Any]:  # noqa: N802
    """One column per 10 ms, for pictures."""
    waveform_BT = torch.from_numpy(pcm_T)[None].float() / 32768.0
    padded = torch.nn.functional.pad(waveform_BT, (0, max(0, 2 * NUM_FFT - waveform_BT.shape[1])))
    result: NDArray[Any] = LogMel(NUM_MELS_SHOWN, torch.device("cpu"))(padded)[0].numpy()
    return result
