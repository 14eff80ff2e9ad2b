"""A deterministic stand-in for a recogniser: its text is a function of the samples alone.

For tests of everything around a model: `--model fake://`, `fake://slow` (which takes as long as a model) or
`fake://poison` (which ends its process when it meets a second of the sample value 12345).
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence

from pipeline.models.base import Transcript, Utterance

SLOWNESS = {"": 0.0, "slow": 0.02, "poison": 0.0}
"""Seconds per segment, by name."""
POISON = 12_345
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


class FakeTranscriber:
    """See `pipeline.models.base.Transcriber`."""

    def __init__(self, name: str = "") -> None:
        self._delay_s, self._is_mortal = SLOWNESS[name], name == "poison"

    def padded_length(self, num_samples: int) -> int:
        return num_samples

    def decode(self, batch: Sequence[Utterance]) -> list[bytes]:
        """A hash of the samples of each utterance."""
        time.sleep(self._delay_s * len(batch))
        if self._is_mortal and any((u.pcm_T[8_000:24_000] == POISON).sum() > 15_000 for u in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        return [hashlib.sha256(u.pcm_T.tobytes()).digest() for u in batch]

    def finish(self, utterances: Sequence[Utterance], raw: Sequence[bytes]) -> list[Transcript]:
        """Four words and a log-probability from each hash."""
        return [
            Transcript(
                text=" ".join(WORDS[byte % len(WORDS)] for byte in digest[:4]),
                language=utterance.language or "en",
                language_probability=None,
                avg_logprob=-digest[4] / 512,
                no_speech_prob=None,
                words=None,
                phrases=None,
            )
            for utterance, digest in zip(utterances, raw, strict=True)
        ]
