"""What a model is to the stages: small Protocols and the rows they give.

B batch, T samples, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Utterance(NamedTuple):
    """What a model is given of one segment.

    `pcm_T`: int16 at 16 kHz, `left` and `right` samples of it context; `track`: recording and channel,
    `start`: first sample after the left context, on the recording's clock; `language`: code or None.
    """

    pcm_T: NDArray[np.int16]
    left: int
    right: int
    track: tuple[str, int | None]
    start: int
    language: str | None


class TimedText(NamedTuple):
    """Text between two samples, counted from the segment's start."""

    text: str
    start: int
    stop: int
    probability: float


class Transcript(NamedTuple):
    """What a model made of one segment. Log-probabilities are natural, per token."""

    text: str
    language: str | None
    language_probability: float | None
    avg_logprob: float | None
    no_speech_prob: float | None
    words: tuple[TimedText, ...] | None
    phrases: tuple[TimedText, ...] | None
    rung: int = 0


class Transcriber(Protocol):
    """A speech recogniser. `decode` sees one batch; `finish` sees a whole piece and gives texts."""

    def padded_length(self, num_samples: int) -> int:
        """Samples that an utterance of this length occupies in a batch."""
        ...

    def decode(self, batch: Sequence[Utterance]) -> list[Any]:
        """One raw result per utterance, in order."""
        ...

    def finish(self, utterances: Sequence[Utterance], raw: Sequence[Any]) -> list[Transcript]:
        """One transcript per utterance, in order."""
        ...
