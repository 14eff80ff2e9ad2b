"""DNSMOS P.835 and P.808: what listeners would say of speech, its background and the whole, 1 (bad) to 5.

Weights and mapping: the package speechmos (MIT, Microsoft; arXiv:2110.01763). Windows of 9.01 s, evenly spread, where the original
takes one a second; what is shorter is repeated, as there. T samples, F frames, M mels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.vad import onnx_runtime
from audiomill.models.locate import installed_path
from audiomill.models.watchdog import heartbeat

_WINDOW = int(9.01 * MODEL_SAMPLE_RATE)
NUM_MELS, NUM_FFT, HOP = 120, 321, 160
SIGNAL = (-0.08397278, 1.22083953, 0.0052439)
BACKGROUND = (-0.13166888, 1.60915514, -0.39604546)
OVERALL = (-0.06766283, 1.11546468, 0.04602535)
"""Polynomials from what the network says to the scale of listeners."""
_FULL_SCALE = 32768.0


class Opinion(NamedTuple):
    """Mean opinion scores, 1 to 5."""

    signal: float
    background: float
    overall: float
    p808: float


def opinion(pcm_T: NDArray[np.int16]) -> Opinion:
    """Of a segment at 16 kHz."""
    wave_T = pcm_T.astype(np.float32) / _FULL_SCALE
    result = np.mean([_window(window) for window in _windows(wave_T)], axis=0)
    return Opinion(*(round(float(value), 3) for value in result))


def _windows(wave_T: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    if len(wave_T) < _WINDOW:
        doubled = wave_T if len(wave_T) else np.zeros(1, np.float32)
        while len(doubled) < _WINDOW:  # the original doubles until it is long enough
            doubled = np.append(doubled, doubled)
        wave_T = doubled[:_WINDOW]
    count = -(-len(wave_T) // _WINDOW)
    last = len(wave_T) - _WINDOW
    starts = [last * at // max(1, count - 1) for at in range(count)]
    return [wave_T[start : start + _WINDOW] for start in starts]


def _window(wave_T: NDArray[np.float32]) -> tuple[float, float, float, float]:
    p835, p808 = _sessions()
    heartbeat()
    ((signal, background, overall),) = p835.run(None, {"input_1": wave_T[None]})[0]
    mel = _log_mels(wave_T[:-160])[None]
    listener = p808.run(None, {"input_1": mel})[0][0][0]
    pairs = ((SIGNAL, signal), (BACKGROUND, background), (OVERALL, overall))
    scores = [float(np.polyval(polynomial, value)) for polynomial, value in pairs]
    return scores[0], scores[1], scores[2], float(listener)


def _log_mels(wave_T: NDArray[np.float32]) -> NDArray[np.float32]:
    """mel_FM in the scale of the network: decibels below the loudest, 0 to 80 down, to 1 to -1."""
    padded = np.pad(wave_T, NUM_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, NUM_FFT)[::HOP]
    window = np.hanning(NUM_FFT + 1)[:-1]
    power = np.square(np.abs(np.fft.rfft(frames * window))) @ _filters()
    level = 10 * np.log10(np.maximum(power, 1e-10))
    log_mels: NDArray[np.float32] = ((np.maximum(level - level.max(), -80.0) + 40) / 40).astype(np.float32)
    return log_mels


@cache
def _filters() -> NDArray[np.float32]:
    from audiomill.models.frames.mel import slaney_filters

    return slaney_filters(NUM_MELS, NUM_FFT)


@cache
def _sessions() -> Sequence[Any]:
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # sums do not depend on the machine
    options.log_severity_level = 3
    return [
        onnxruntime.InferenceSession(str(installed_path(name)), options, providers=["CPUExecutionProvider"])
        for name in ("dnsmos-p835", "dnsmos-p808")
    ]
