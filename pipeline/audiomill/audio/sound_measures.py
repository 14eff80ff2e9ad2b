"""What a stretch of speech sounds like, from its samples: noise, clipping, bandwidth, loudness, silence. T samples, F frames.

Measured at the models' rate, so bandwidth ends at 8 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.vad import FRAME_SAMPLES

_STRETCH = MODEL_SAMPLE_RATE // 10
MAX_VALUES = 1_000


class Envelope:
    """Loudest sample of every tenth of a second; longer recordings: of up to 1,000 equal stretches."""

    def __init__(self) -> None:
        self._peaks = bytearray()
        self._rest_T = np.zeros(0, np.int32)

    def push(self, pcm_TK: NDArray[np.int16]) -> None:
        """Takes the next samples of all channels."""
        loudest_T = np.abs(pcm_TK.astype(np.int32)).max(axis=1)
        joined = np.concatenate([self._rest_T, loudest_T])
        whole = len(joined) // _STRETCH * _STRETCH
        self._peaks += _levels(joined[:whole].reshape(-1, _STRETCH).max(axis=1)) if whole else b""
        self._rest_T = joined[whole:]

    def finish(self) -> tuple[bytes, float]:
        """The levels, and the seconds that one stands for (the last may be shorter)."""
        if len(self._rest_T):
            self._peaks += _levels(self._rest_T.max(keepdims=True))
            self._rest_T = self._rest_T[:0]
        level_N = np.frombuffer(bytes(self._peaks), np.uint8)
        group = max(1, -(-len(level_N) // MAX_VALUES))
        padded = np.pad(level_N, (0, -len(level_N) % group)).reshape(-1, group)
        seconds = _STRETCH * group / MODEL_SAMPLE_RATE
        return (padded.max(axis=1).tobytes() if len(level_N) else b""), seconds


def _levels(peak_N: NDArray[np.int32]) -> bytes:
    """255 times the square root of the amplitude: quiet speech stays visible in eight bits."""
    level_N = np.rint(255 * np.sqrt(np.minimum(peak_N, 32_767) / 32_767))
    return bytes(level_N.astype(np.uint8).tobytes())


_FULL_SCALE = 32768.0
CLIPPED_AT = 32_700
SHORTEST_CLIP = 2
"""Samples in a row at full scale: one may be a peak."""
LEAST_NOISE_FRAMES = 3
QUIETEST_PCT = 15
"""Percentile of the power of all frames that noise does not exceed."""
LEAST_DB, MOST_DB = -20.0, 80.0
NUM_FFT = 512
BAND_DB = 60.0
"""Below the strongest band: what is weaker is not there. Resamplers and codecs leave less; fricatives have more."""
MOST_FRAMES = 4000
LEAST_LOUDNESS_S = 0.4
"""One block of the standard."""


@dataclass(frozen=True)
class Signal:
    """`snr_db`: speech to noise; `clipped_share`, `silence_share`: of samples; `bandwidth_hz`: highest frequency with sound;
    `loudness_lufs`: integrated, None for less than 0.4 s and for silence."""

    snr_db: float | None
    clipped_share: float
    bandwidth_hz: float
    loudness_lufs: float | None
    silence_share: float


def measured(pcm_T: NDArray[np.int16], vad_mask: bytes) -> Signal:
    """Measures a segment.

    Args:
        pcm_T: its samples at 16 kHz.
        vad_mask: a byte for every 512 samples, 1 where there is voice activity.
    """
    is_voiced_F = np.frombuffer(vad_mask, np.uint8).astype(bool)[: -(-len(pcm_T) // FRAME_SAMPLES)]
    wave_T = pcm_T.astype(np.float64) / _FULL_SCALE
    return Signal(
        snr_db=_snr_db(wave_T, is_voiced_F),
        clipped_share=round(_clipped_share(pcm_T), 6),
        bandwidth_hz=_bandwidth_hz(wave_T),
        loudness_lufs=_loudness(wave_T),
        silence_share=round(float(1.0 - is_voiced_F.mean()), 4) if len(is_voiced_F) else 1.0,
    )


def _snr_db(wave_T: NDArray[np.float64], is_voiced_F: NDArray[np.bool_]) -> float | None:
    """Power in frames with voice activity, less that of noise, over that of frames without; None: no speech, or no sound."""
    num_frames = min(len(wave_T) // FRAME_SAMPLES, len(is_voiced_F))
    frames_FT = wave_T[: num_frames * FRAME_SAMPLES].reshape(num_frames, FRAME_SAMPLES)
    power_F, voiced_F = (
        np.square(frames_FT).mean(1) if num_frames else np.zeros(0),
        is_voiced_F[:num_frames],
    )
    is_sound_F = power_F > 0.0  # digital silence is no noise: it was cut out, or put in
    power_F, voiced_F = power_F[is_sound_F], voiced_F[is_sound_F]
    if not voiced_F.any():
        return None
    # A frame beside speech holds its beginning or end, and voice activity misses some: the middle of what is left is noise, and
    # no louder than the quietest frames of all.
    beside = power_F[~(np.convolve(np.pad(voiced_F, 1), [1, 1, 1], "valid") > 0)]
    quiet = float(np.percentile(power_F, QUIETEST_PCT))
    noise = min(float(np.median(beside)), quiet) if len(beside) >= LEAST_NOISE_FRAMES else quiet
    level, floor = float(power_F[voiced_F].mean()), noise
    if level <= 0.0:
        return None
    floor = max(floor, 0.25 / _FULL_SCALE**2 / 3)  # a file of 16 bits holds no less
    return round(float(np.clip(10 * np.log10(max(level - floor, 1e-12) / floor), LEAST_DB, MOST_DB)), 2)


def _clipped_share(pcm_T: NDArray[np.int16]) -> float:
    """Of the samples, those in runs at full scale."""
    is_full = np.abs(pcm_T.astype(np.int32)) >= CLIPPED_AT
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_full, [False]]).astype(np.int8))).reshape(-1, 2)
    runs = edges[:, 1] - edges[:, 0]
    return float(runs[runs >= SHORTEST_CLIP].sum() / max(1, len(pcm_T)))


def _bandwidth_hz(wave_T: NDArray[np.float64]) -> float:
    """The highest band that its loudest moments reach: twice this is the true sample rate."""
    if len(wave_T) < NUM_FFT:
        wave_T = np.pad(wave_T, (0, NUM_FFT - len(wave_T)))
    frames = np.lib.stride_tricks.sliding_window_view(wave_T, NUM_FFT)[:: NUM_FFT // 2]
    frames = frames[:: -(-len(frames) // MOST_FRAMES)]  # evenly spread: an hour takes no more memory than a minute
    power_FN = np.square(np.abs(np.fft.rfft(frames * np.hanning(NUM_FFT))))
    loud_N = np.percentile(power_FN, 95, axis=0)
    if loud_N.max() <= 0.0:
        return 0.0
    there = np.flatnonzero(10 * np.log10(loud_N / loud_N.max() + 1e-30) > -BAND_DB)
    return float(there[-1] * MODEL_SAMPLE_RATE / NUM_FFT)


def _loudness(wave_T: NDArray[np.float64]) -> float | None:
    """ITU-R BS.1770-4, by pyloudnorm."""
    import pyloudnorm

    if len(wave_T) < LEAST_LOUDNESS_S * MODEL_SAMPLE_RATE:
        return None
    result = float(pyloudnorm.Meter(MODEL_SAMPLE_RATE).integrated_loudness(wave_T))
    return round(result, 2) if np.isfinite(result) else None
