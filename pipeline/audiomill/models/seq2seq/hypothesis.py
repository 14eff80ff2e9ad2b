"""What a decoder made of a segment before it is text, and what it knows about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Candidate
from audiomill.models.seq2seq.decode_slots import DecodedTokens
from audiomill.models.seq2seq.quality_checks import DecodingMetrics, chars_per_second
from audiomill.text.repetition import compression_ratio, num_repeats
from audiomill.text.scripts import units

EncoderContext = Literal["short", "long", "window"]


class TimedToken(NamedTuple):
    """`start`, `stop`: samples on the segment's clock."""

    token: int
    start: int
    stop: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """One way to decode.

    Attributes:
        fallback_level: its number.
        context: how much the encoder sees of its window, where the family can show it less: that depends on the segment alone.
        num_beams: 1: greedy.
        uses_fusion: beams are scored by what a run asked for besides the decoder (language models, coverage).
        stops_repetition: a row that loops is stopped.
        decodes_trailing_speech: speech behind the last phrase is decoded as a window of its own.
        watches_language: looks for a change of language inside a segment.
    """

    fallback_level: int = 0
    context: EncoderContext = "window"
    num_beams: int = 1
    uses_fusion: bool = False
    stops_repetition: bool = False
    decodes_trailing_speech: bool = False
    watches_language: bool = False


class DecodedChunk(NamedTuple):
    """One pass of the decoder over a segment from sample `start` on."""

    start: int
    decoded: DecodedTokens
    timed: tuple[TimedToken, ...] | None = None


class Hypothesis(NamedTuple):
    """Raw result of one segment: usually one chunk, more where the decoder stopped early. `languages`: their probabilities, where it was detected; `nbest`:
    the best texts, where they were asked for; `may_mix_languages`: some stretch of it may be in another language."""

    chunks: tuple[DecodedChunk, ...]
    language: str | None
    language_probability: float | None
    fallback_level: int = 0
    failed_checks: tuple[str, ...] | None = None
    languages: dict[str, float] | None = None
    nbest: tuple[Candidate, ...] | None = None
    may_mix_languages: bool = False

    @property
    def tokens(self) -> list[int]:
        return [token for stretch in self.chunks for token in stretch.decoded.tokens]

    @property
    def symbols(self) -> NDArray[np.int64]:
        return np.asarray(self.tokens, np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Geometric mean token probability of each stretch."""
        pairs = [(s.decoded.sum_logprob, s.decoded.num_chosen) for s in self.chunks]
        return np.asarray([np.exp(total / max(1, count)) for total, count in pairs])


def mean_logprob(hypothesis: Hypothesis) -> float:
    decoded = [stretch.decoded for stretch in hypothesis.chunks]
    return sum(each.sum_logprob for each in decoded) / max(1, sum(each.num_chosen for each in decoded))


def metrics_of(
    segments: Sequence[Segment], hypotheses: Sequence[Hypothesis], texts: Sequence[str], overruns_s: Sequence[float]
) -> list[DecodingMetrics]:
    """What the decoder knows about each text.

    Args:
        segments: that were heard.
        hypotheses: tokens of each.
        texts: as they are written, blanks around them and all.
        overruns_s: by how much each is said to begin behind the audio's end.
    """
    return [
        DecodingMetrics(
            avg_logprob=mean_logprob(hypothesis),
            no_speech_prob=hypothesis.chunks[0].decoded.no_speech_prob,
            compression_ratio=compression_ratio(text.strip()),
            num_repeats=num_repeats(units(text.lower())),
            chars_per_second=chars_per_second(text.strip(), segment.seconds),
            is_finished=all(stretch.decoded.is_finished for stretch in hypothesis.chunks),
            overrun_s=overrun_s,
            speech_s=None if segment.speech is None else segment.speech / MODEL_SAMPLE_RATE,
        )
        for segment, hypothesis, text, overrun_s in zip(segments, hypotheses, texts, overruns_s, strict=True)
    ]
