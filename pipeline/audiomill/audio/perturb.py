"""Clips as they might have been said: faster, slower, in noise. T samples.

Source: Ko et al. 2015, "Audio augmentation for speech recognition" (speed perturbation).
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE

_MIN_SAMPLES = 400


def at_speed(pcm_T: NDArray[np.int16], speed: float) -> NDArray[np.int16]:
    """The same sound, faster above 1; pitch goes with it."""
    if len(pcm_T) < _MIN_SAMPLES or speed == 1:
        return pcm_T
    wave_T = soxr.resample(pcm_T.astype(np.float32), MODEL_SAMPLE_RATE * speed, MODEL_SAMPLE_RATE, quality="MQ")
    return _as_int16(wave_T)


def in_noise(pcm_T: NDArray[np.int16], snr_db: float, random: np.random.Generator) -> NDArray[np.int16]:
    """With noise between white and brown, so many dB below the sound's mean power."""
    if not len(pcm_T):
        return pcm_T
    spectrum = np.fft.rfft(random.standard_normal(len(pcm_T)))
    spectrum /= np.maximum(1, np.arange(len(spectrum))) ** random.uniform(0, 1)
    noise_T = np.fft.irfft(spectrum, len(pcm_T))
    wave_T = pcm_T.astype(np.float64)
    power, noise_power = float(np.square(wave_T).mean()), float(np.square(noise_T).mean())
    return _as_int16(wave_T + np.sqrt(power / max(noise_power, 1e-12) / 10 ** (snr_db / 10)) * noise_T)


def _as_int16(wave_T: NDArray[np.floating]) -> NDArray[np.int16]:
    result: NDArray[np.int16] = np.clip(np.rint(wave_T), -32768, 32767).astype(np.int16)
    return result
