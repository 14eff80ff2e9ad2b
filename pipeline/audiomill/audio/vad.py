"""Voice activity detection: probabilities of speech, as a stream, by any of several detectors.

silero: the network of the `silero-vad` package is run through onnxruntime by its "sequence" export: one call per
block of frames with the LSTM state carried over, the same numbers as the package's frame-by-frame loop.
The package itself is not imported: that would load torch into every decode process.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE

SILERO, WEBRTC = "silero", "webrtc"
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


class VoiceActivityDetector(Protocol):
    """Hears one channel of one recording; its probabilities do not depend on how the recording arrives."""

    def push(self, pcm_T: NDArray[np.int16]) -> NDArray[np.float32]:
        """Takes the next samples at 16 kHz; returns the probabilities of speech that became known, one every 512 samples."""
        ...

    def finish(self) -> NDArray[np.float32]:
        """Probabilities of what is left; the last frame is padded with zeros."""
        ...


def detector(name: str) -> VoiceActivityDetector:
    """The detector that `--vad` names, for one channel of one recording."""
    return DETECTORS[name]()


def voiced_frames(pcm_T: NDArray[np.int16], threshold: float, vad: str = SILERO) -> NDArray[np.bool_]:
    """Whether the probability of speech of each frame reaches `threshold`, by the detector `vad`."""
    voice = detector(vad)
    result: NDArray[np.bool_] = np.concatenate([voice.push(pcm_T), voice.finish()]) >= threshold
    return result


def speech_samples(pcm_T: NDArray[np.int16], threshold: float, vad: str = SILERO) -> int:
    """Samples in frames with speech."""
    return int(voiced_frames(pcm_T, threshold, vad).sum()) * FRAME_SAMPLES


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


class WebrtcVoiceActivity:
    """WebRTC's detector: the share of its four modes, from the most lenient to the strictest, that take 10 ms for speech; of a
    frame the mean over the 10 ms whose middle lies in it."""

    STEP_SAMPLES, MODES = 160, (0, 1, 2, 3)

    def __init__(self) -> None:
        import webrtcvad

        self._modes = [webrtcvad.Vad(mode) for mode in self.MODES]
        self._waiting = np.zeros(0, np.int16)
        self._votes: list[float] = []
        self._num_steps = self._num_frames = 0

    def push(self, pcm_T: NDArray[np.int16]) -> NDArray[np.float32]:
        pcm_T = np.concatenate([self._waiting, pcm_T])
        whole = len(pcm_T) // self.STEP_SAMPLES * self.STEP_SAMPLES
        self._waiting = pcm_T[whole:]
        for step_T in pcm_T[:whole].reshape(-1, self.STEP_SAMPLES):
            sound = step_T.astype("<i2").tobytes()
            self._votes.append(float(np.mean([mode.is_speech(sound, MODEL_SAMPLE_RATE) for mode in self._modes])))
        return self._known((self._num_steps + len(self._votes)) * self.STEP_SAMPLES // FRAME_SAMPLES)

    def finish(self) -> NDArray[np.float32]:
        num_samples = (self._num_steps + len(self._votes)) * self.STEP_SAMPLES + len(self._waiting)
        num_frames = -(-num_samples // FRAME_SAMPLES)
        missing = num_frames * FRAME_SAMPLES + self.STEP_SAMPLES - num_samples if num_samples else 0
        first = self.push(np.zeros(missing, np.int16))
        return np.concatenate([first, self._known(num_frames)])

    def _known(self, num_frames: int) -> NDArray[np.float32]:
        """Of the frames before this number that were not given yet."""
        results = []
        for frame in range(self._num_frames, num_frames):
            # first and last steps with their middle in the frame
            first = -(-(frame * FRAME_SAMPLES - self.STEP_SAMPLES // 2) // self.STEP_SAMPLES)
            last = ((frame + 1) * FRAME_SAMPLES - self.STEP_SAMPLES // 2 - 1) // self.STEP_SAMPLES
            votes = self._votes[max(0, first - self._num_steps) : last + 1 - self._num_steps]
            results.append(float(np.mean(votes)))
        self._num_frames = max(self._num_frames, num_frames)
        done = max(
            0, -(-(self._num_frames * FRAME_SAMPLES - self.STEP_SAMPLES // 2) // self.STEP_SAMPLES) - self._num_steps
        )
        self._votes, self._num_steps = self._votes[done:], self._num_steps + min(done, len(self._votes))
        return np.array(results, np.float32)


DETECTORS: Mapping[str, Callable[[], VoiceActivityDetector]] = {
    SILERO: SpeechProbabilities,
    WEBRTC: WebrtcVoiceActivity,
}
"""By the names that `--vad` takes."""
