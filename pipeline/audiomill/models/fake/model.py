"""A deterministic stand-in for a model: its answers are a function of the samples alone.

For tests of everything around a model: `--model fake://`, `fake://slow` (which takes as long as a model), `fake://device` (longer, and like a GPU leaves the CPU alone),
`fake://leaky` (whose answers change with the padding, as those of a faulty model do), `fake://greedy` (whose memory
holds two rows) or `fake://poison`, which does harm when it meets a second of one sample value: at 12345 it ends its
process, at 12346 it computes for ever, at 12347 it waits for ever, at 12348 it raises an error, at 12349 it asks for more
memory than there is.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment
from audiomill.errors import ModelError
from audiomill.models.base import Parity, Prediction, Readout, RequestedOutputs, SpeechModel, Transcript, Vectors
from audiomill.models.task import Shape

SLOWNESS = {"slow": 0.02, "device": 0.25}
"""Seconds per segment, by name."""
HARM: dict[int, Callable[[], object]] = {
    12_345: lambda: os.kill(os.getpid(), signal.SIGKILL),
    12_346: lambda: _compute_for_ever(),
    12_347: lambda: threading.Event().wait(),
    12_348: lambda: _raise(ValueError("fake fault")),
    12_349: lambda: _raise(MemoryError("fake memory")),
}
_NAMES = ("", "leaky", "greedy", "poison", *SLOWNESS)
FAKE_SHAPE = Shape(width=8, num_layers=2, hop=320, quantizer=(2, 16))
WORDS = [
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliett",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
]


def _do_harm(batch: Sequence[Segment]) -> None:
    for segment in batch:
        value, count = Counter(segment.pcm_T[8_000:24_000].tolist()).most_common(1)[0]
        if value in HARM and count > 15_000:
            HARM[value]()


def _compute_for_ever() -> None:
    while True:
        pass


def _raise(error: Exception) -> None:
    raise error


class Digest(NamedTuple):
    """A hash of the samples."""

    digest: bytes

    @property
    def symbols(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.digest, np.uint8)

    @property
    def probabilities(self) -> NDArray[np.uint8]:
        return self.symbols


class FakeModel(SpeechModel):
    """See `audiomill.models.base.SpeechModel`."""

    def __init__(self, name: str, requested: RequestedOutputs) -> None:
        if name not in _NAMES:
            raise ModelError(f"--model fake://{name}: expected one of {', '.join(f'fake://{each}' for each in _NAMES)}")
        self._delay_s, self._is_poisonable, self._wants = SLOWNESS.get(name, 0.0), name == "poison", requested
        self._leaks, self._is_greedy = name == "leaky", name == "greedy"

    def padded_length(self, num_samples: int) -> int:
        return num_samples

    def parity(self, segment: Segment) -> Parity:
        """There is nothing else that it should be."""
        return Parity()

    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """A hash of the samples of each segment; frame means as vectors, their signs as codes."""
        time.sleep(self._delay_s * len(batch))
        if self._is_greedy and len(batch) > 2:
            raise RuntimeError("fake device out of memory")
        if self._is_poisonable:
            _do_harm(batch)
        digests = [Digest(hashlib.sha256(u.pcm_T.tobytes()).digest()) for u in batch]
        longest = max(len(u.pcm_T) for u in batch)
        padding = [(longest - len(u.pcm_T)) * self._leaks for u in batch]
        texts = digests if self._wants.has_text else [None] * len(batch)
        return [Prediction(text, self._readout(u, leak)) for text, u, leak in zip(texts, batch, padding, strict=True)]

    def _readout(self, segment: Segment, leak: int) -> Readout:
        hop, width = FAKE_SHAPE.hop, FAKE_SHAPE.width
        stop = len(segment.pcm_T) - segment.right
        first, last = -(-segment.left // hop), -(-stop // hop)
        padded = np.pad(segment.pcm_T, (0, -len(segment.pcm_T) % hop)).reshape(-1, hop)[first:last]
        values_ND = padded.reshape(len(padded), width, -1).mean(-1).astype(np.float16) / 8 + np.float16(leak / 1000)
        bits_N = (values_ND[:, :4] > 0) @ (1 << np.arange(4))
        vectors = [values_ND if want.pool == "none" else values_ND.mean(0)[None] for want in self._wants.vectors]
        codes = [np.stack([bits_N] * want.num_codebooks).astype(np.uint16) for want in self._wants.codes]
        return Readout(tuple(Vectors(vector, None, len(values_ND)) for vector in vectors), tuple(codes))

    def transcripts(self, segments: Sequence[Segment], texts: Sequence[Digest]) -> list[Transcript]:
        """Four words and a log-probability from each hash."""
        return [
            Transcript(
                text=" ".join(WORDS[byte % len(WORDS)] for byte in text.digest[:4]),
                language=segment.language or "en",
                language_probability=None,
                avg_logprob=-text.digest[4] / 512,
                no_speech_prob=None,
                words=None,
                phrases=None,
            )
            for segment, text in zip(segments, texts, strict=True)
        ]
