"""Voice activity detection: speech probabilities with silero-vad, as a stream.

The network of the `silero-vad` package is run through onnxruntime by its "sequence" export: one call per
block of frames with the LSTM state carried over, the same numbers as the package's frame-by-frame loop.
The package itself is not imported: that would load torch into every decode process.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAME_SAMPLES = 512
"""Samples a frame: 32 ms at 16 kHz."""
CONTEXT_SAMPLES = 64
STATE_SHAPE = (1, 1, 128)
_BLOCK_FRAMES = 512
"""Frames a call: 16.4 s. Fixed, so that a recording's probabilities do not depend on how it arrived."""
MODEL_FILE = "silero_vad_16k_sequence.onnx"


def onnx_runtime() -> Any:
    """The module; it would otherwise ask a server of its maker's, and leave a number for this machine in the home folder."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


@cache
def _session() -> Any:
    onnxruntime = onnx_runtime()
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None and spec.origin is not None
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    path = Path(spec.origin).parent / "data" / MODEL_FILE
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def voiced_frames(pcm_T: NDArray[np.int16], threshold: float) -> NDArray[np.bool_]:
    """Whether the probability of speech of each frame reaches `threshold`."""
    voice = SpeechProbabilities()
    result: NDArray[np.bool_] = np.concatenate([voice.push(pcm_T), voice.finish()]) >= threshold
    return result


def speech_samples(pcm_T: NDArray[np.int16], threshold: float) -> int:
    """Samples in frames with speech."""
    return int(voiced_frames(pcm_T, threshold).sum()) * FRAME_SAMPLES


class SpeechProbabilities:
    """Probability of speech for every 32 ms of one channel of one recording.

    Args:
        block_frames: frames a call; few of them make probabilities known sooner, at more work.
    """

    def __init__(self, block_frames: int = _BLOCK_FRAMES) -> None:
        self._block_samples = block_frames * FRAME_SAMPLES
        self._hidden = np.zeros(STATE_SHAPE, np.float32)
        self._cell = np.zeros(STATE_SHAPE, np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._waiting: list[NDArray[np.int16]] = []
        self._num_waiting = 0

    def push(self, pcm_T: NDArray[np.int16]) -> NDArray[np.float32]:
        """Takes the next samples; returns the probabilities that became known (in whole blocks)."""
        self._waiting.append(pcm_T)
        self._num_waiting += len(pcm_T)
        if self._num_waiting < self._block_samples:
            return np.zeros(0, np.float32)
        pcm = np.concatenate(self._waiting)
        whole = len(pcm) // self._block_samples * self._block_samples
        self._waiting, self._num_waiting = [pcm[whole:]], len(pcm) - whole
        return np.concatenate([self._run(block) for block in pcm[:whole].reshape(-1, self._block_samples)])

    def finish(self) -> NDArray[np.float32]:
        """Probabilities of what is left; the last frame is padded with zeros."""
        pcm = np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.int16)
        self._waiting, self._num_waiting = [], 0
        if not len(pcm):
            return np.zeros(0, np.float32)
        return self._run(np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES)))

    def _run(self, pcm_T: NDArray[np.int16]) -> NDArray[np.float32]:
        frames = (pcm_T.astype(np.float32) / 32768.0).reshape(-1, FRAME_SAMPLES)
        contexts = np.vstack([self._context, frames[:-1, -CONTEXT_SAMPLES:]])
        self._context = frames[-1, -CONTEXT_SAMPLES:].copy()
        probabilities, self._hidden, self._cell = _session().run(
            ["speech_probs", "hn", "cn"], {"input": np.hstack([contexts, frames]), "h": self._hidden, "c": self._cell}
        )
        return np.asarray(probabilities, np.float32).reshape(-1)
