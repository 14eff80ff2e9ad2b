"""How near a copy is to its original. T samples, F frames, M mel bands.

Sources: Le Roux et al. 2019, arXiv:1811.02508 (SI-SDR); the mel distance is the one that codecs report, in decibels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_MELS, FLOOR = 80, 1e-5
WINDOW_S, HOP_S = 0.04, 0.01
MOST_DB = 100.0
"""Of two sounds that are equal."""


def si_sdr_db(original_T: NDArray[np.float32], copy_T: NDArray[np.float32]) -> float | None:
    """Scale-invariant ratio of signal to distortion, in decibels, between -100 and 100; None where one of them is silent."""
    original, copy = (each.astype(np.float64) - each.mean(dtype=np.float64) for each in (original_T, copy_T))
    power = float(original @ original)
    if not power or not float(copy @ copy):
        return None
    target = (float(original @ copy) / power) * original
    signal_power, lost = float(target @ target), float(np.square(copy - target).sum())
    if not signal_power or not lost:
        return MOST_DB if signal_power else -MOST_DB
    return float(np.clip(10 * np.log10(signal_power / lost), -MOST_DB, MOST_DB))


def mel_distance_db(original_T: NDArray[np.float32], copy_T: NDArray[np.float32], rate: int) -> float:
    """Mean absolute difference of log-mel spectrograms."""
    first, second = (_log_mel_db(each, rate) for each in (original_T, copy_T))
    return float(np.abs(first - second).mean())


def _log_mel_db(wave_T: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    size = round(WINDOW_S * rate)
    padded = np.pad(wave_T, (0, max(0, size - len(wave_T))))
    filters = mel_filter_bank(size // 2 + 1, NUM_MELS, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    result: NDArray[np.float64] = spectrogram(
        padded, window_function(size, "hann"), size, round(HOP_S * rate), power=1.0, mel_filters=filters,
        mel_floor=FLOOR,
    )  # fmt: skip
    return 20 * np.log10(result)
