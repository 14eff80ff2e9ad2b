"""The outline of a recording's waveform in a thousand bytes, made while it passes. T samples, K channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE

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
