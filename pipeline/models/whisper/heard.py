"""What Whisper made of a segment before it is text, and what the decoder knows about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.base import Utterance
from audiomill.models.whisper.gates import Signals, chars_per_second
from audiomill.models.whisper.network.table import Decoded
from audiomill.models.whisper.tokens import TIMESTAMP_STEP_S, WhisperTokens
from audiomill.models.whisper.words import TimedToken
from audiomill.text.repetition import compression_ratio, num_repeats
from audiomill.text.scripts import units

STAMP_SAMPLES = int(TIMESTAMP_STEP_S * MODEL_SAMPLE_RATE)


@dataclass(frozen=True, kw_only=True)
class How:
    """One way to decode. `rung`: its number; `is_short`: short context; `temperature` 0: the most probable token;
    `hears_out`: what the decoder leaves out at the end is decoded too, where somebody speaks there."""

    rung: int = 0
    is_short: bool = False
    temperature: float = 0.0
    num_beams: int = 1
    stops_loops: bool = False
    hears_out: bool = False


class Stretch(NamedTuple):
    """One pass of the decoder over an utterance from sample `start` on."""

    start: int
    decoded: Decoded
    timed: tuple[TimedToken, ...] | None = None


class Heard(NamedTuple):
    """Raw result of one utterance: usually one stretch, more where the decoder stopped early. `is_agreed`: two rungs
    gave the same tokens, so a third would not change them; `languages`: their probabilities, where it was detected."""

    stretches: tuple[Stretch, ...]
    language: str | None
    language_probability: float | None
    rung: int = 0
    gates: tuple[str, ...] | None = None
    is_agreed: bool = False
    languages: dict[str, float] | None = None

    @property
    def tokens(self) -> list[int]:
        return [token for stretch in self.stretches for token in stretch.decoded.tokens]

    @property
    def symbols(self) -> NDArray[np.int64]:
        return np.asarray(self.tokens, np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Geometric mean token probability of each stretch."""
        pairs = [(s.decoded.sum_logprob, s.decoded.num_chosen) for s in self.stretches]
        return np.asarray([np.exp(total / max(1, count)) for total, count in pairs])


def mean_logprob(heard: Heard) -> float:
    decoded = [stretch.decoded for stretch in heard.stretches]
    return sum(each.sum_logprob for each in decoded) / max(1, sum(each.num_chosen for each in decoded))


def signals_of(
    utterances: Sequence[Utterance], texts: Sequence[Heard], tokens: WhisperTokens, tokenizer: Any
) -> list[Signals]:
    """What the decoder knows about each text."""
    whole = [[token for token in heard.tokens if token < tokens.end] for heard in texts]
    found = []
    for utterance, heard, text in zip(utterances, texts, tokenizer.decode_batch(whole), strict=True):
        seconds = (len(utterance.pcm_T) - utterance.left - utterance.right) / MODEL_SAMPLE_RATE
        decoded = [stretch.decoded for stretch in heard.stretches]
        found.append(
            Signals(
                avg_logprob=mean_logprob(heard),
                no_speech_prob=decoded[0].no_speech_prob,
                compression_ratio=compression_ratio(text.strip()),
                num_repeats=num_repeats(units(text.lower())),
                chars_per_second=chars_per_second(text.strip(), seconds),
                is_finished=all(each.is_finished for each in decoded),
                overrun_s=_last_beginning(heard, tokens) - seconds,
                speech_s=None if utterance.speech is None else utterance.speech / MODEL_SAMPLE_RATE,
            )
        )
    return found


def _last_beginning(heard: Heard, tokens: WhisperTokens) -> float:
    """Seconds at which the last phrase with words is said to begin. Where it is said to end tells nothing: in a short
    context Whisper likes to close its phrases late."""
    found = 0.0
    for stretch in heard.stretches:
        for stamp, text in pairwise(stretch.decoded.tokens):
            if stamp >= tokens.first_timestamp and text < tokens.end:
                at = stretch.start / MODEL_SAMPLE_RATE + (stamp - tokens.first_timestamp) * TIMESTAMP_STEP_S
                found = max(found, at)
    return found


def phrase_tokens(heard: Heard, tokens: WhisperTokens, num_samples: int) -> list[tuple[list[int], int, int]]:
    """Text tokens between timestamp tokens, with the samples that the stamps stand for.

    A last phrase without end stamp ends with the segment.
    """
    phrases: list[tuple[list[int], int, int]] = []
    for stretch in heard.stretches:
        start, text = stretch.start, list[int]()
        for token in stretch.decoded.tokens:
            if token < tokens.end:
                text.append(token)
            elif token >= tokens.first_timestamp:
                at = min(stretch.start + (token - tokens.first_timestamp) * STAMP_SAMPLES, num_samples)
                if text:
                    phrases.append((text, start, at))
                    text = []
                start = at
        if text:
            phrases.append((text, start, num_samples))
    return phrases
