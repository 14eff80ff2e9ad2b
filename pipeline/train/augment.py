"""Clips as they might have been said: faster, slower, in noise. A function of the clip and a seed alone.

T samples. Source: Ko et al. 2015, "Audio augmentation for speech recognition" (speed perturbation).
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from pipeline.audio.clock import MODEL_SAMPLE_RATE

NOISE_RANGE_DB = 20.0
NOISE_SHARE = 0.5
MIN_SAMPLES = 400


def augmented(
    pcm_T: NDArray[np.int16], speed_range: float, noise_snr: float | None, random: np.random.Generator
) -> NDArray[np.int16]:
    """A clip at another speed and with noise, as far as asked for.

    Args:
        pcm_T: at 16 kHz.
        speed_range: largest change of speed, as a share.
        noise_snr: loudest noise, in dB below the speech; None for none.
        random: where chance comes from.
    """
    wave_T = pcm_T.astype(np.float32)
    if speed_range:
        wave_T = at_speed(wave_T, 1 + speed_range * (2 * random.random() - 1))
    if noise_snr is not None and random.random() < NOISE_SHARE:
        wave_T = wave_T + noise_like(wave_T, noise_snr + NOISE_RANGE_DB * random.random(), random)
    return np.clip(np.rint(wave_T), -32768, 32767).astype(np.int16)


def at_speed(wave_T: NDArray[np.float32], speed: float) -> NDArray[np.float32]:
    """The same sound, faster above 1; pitch goes with it."""
    if len(wave_T) < MIN_SAMPLES:
        return wave_T
    found: NDArray[np.float32] = soxr.resample(wave_T, MODEL_SAMPLE_RATE * speed, MODEL_SAMPLE_RATE, quality="MQ")
    return found


def noise_like(wave_T: NDArray[np.float32], snr_db: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Noise between white and brown, so many dB below the sound's mean power."""
    spectrum = np.fft.rfft(random.standard_normal(len(wave_T)))
    spectrum /= np.maximum(1, np.arange(len(spectrum))) ** random.uniform(0, 1)
    noise_T = np.fft.irfft(spectrum, len(wave_T))
    power, own = float(np.square(wave_T).mean()), float(np.square(noise_T).mean())
    scale = np.sqrt(power / max(own, 1e-12) / 10 ** (snr_db / 10))
    return np.asarray(scale * noise_T, np.float32)
