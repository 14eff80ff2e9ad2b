"""Speech LLMs: a language model decodes text behind a prefix of encoded audio.

P prefix, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import OnProgress, Parity, Prediction, SpeechModel, Transcript, no_progress
from audiomill.models.causal.activation_trace import ActivationTrace, Stage, first_choices
from audiomill.models.seq2seq.generation import DecoderAdapter, Generator
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.quality_checks import DecodingMetrics
from audiomill.models.seq2seq.temperature_fallback import FallbackPolicy
from audiomill.models.watchdog import heartbeat

MOST_SHOWN, NUM_CHOICES = 60, 5
"""Tokens of a picture, and choices of each."""


class AudioPrefixEncoder(Protocol):
    """Audio -> what the language model begins with."""

    def padded_length(self, num_samples: int) -> int:
        """Samples that a segment of this length occupies in a batch."""
        ...

    def prefixes(self, batch: Sequence[Segment]) -> list[Tensor]:
        """prefix_PD of each segment: prompt and audio. The same whatever is beside it."""
        ...

    def stages(self, segment: Segment) -> tuple[Stage, ...]:
        """What is heard on the way to the prefix."""
        ...


class SpeechLLM(SpeechModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        listening: audio -> prefixes.
        writer: the language model's side.
        wanted: options of texts.
        memory_fraction: share of the device's free memory to plan for.
        parity: compares one segment with transformers' own model.
    """

    pads_rows_alone = True

    def __init__(
        self,
        listening: AudioPrefixEncoder,
        writer: DecoderAdapter,
        wanted: TranscriptConfig,
        memory_fraction: float,
        parity: Callable[[Segment], Parity],
    ) -> None:
        self._listening, self._parity, self._writer = listening, parity, writer
        self._writing = Generator(writer, wanted, memory_fraction)
        self._first = DecodingOptions(stops_repetition=wanted.temperature_fallback)
        if wanted.temperature_fallback:
            self.fallback = FallbackPolicy(model=self, first=self._first, checks=wanted)

    def padded_length(self, num_samples: int) -> int:
        return self._listening.padded_length(num_samples)

    def context(self, num_samples: int, options: DecodingOptions) -> int:
        """The encoder is shown the segment, however its text is written."""
        return num_samples

    def spare_memory(self) -> None:
        self._writing.spare_memory()

    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Tokens. A segment's context is not looked at."""
        return self.forward_with_progress(batch, no_progress)

    def forward_with_progress(self, batch: Sequence[Segment], on_progress: OnProgress) -> list[Prediction]:
        """Reports a row when its text is written."""
        return [Prediction(hypothesis) for hypothesis in self._decoded(batch, self._first, on_progress)]

    def decode(self, batch: Sequence[Segment], options: DecodingOptions) -> list[Hypothesis]:
        """Tokens of one batch."""
        return self._decoded(batch, options, no_progress)

    @torch.inference_mode()
    def _decoded(self, batch: Sequence[Segment], options: DecodingOptions, on_progress: OnProgress) -> list[Hypothesis]:
        cores = [segment.core for segment in batch]
        heartbeat()
        return self._writing.written(cores, self._listening.prefixes(cores), options, on_progress)

    def metrics(self, segments: Sequence[Segment], texts: Sequence[Hypothesis]) -> list[DecodingMetrics]:
        """What the language model knows about each text."""
        return self._writing.metrics(segments, texts)

    def transcripts(self, segments: Sequence[Segment], texts: Sequence[Hypothesis]) -> list[Transcript]:
        """Texts, without times of words."""
        return self._writing.transcripts(texts)

    @torch.inference_mode()
    def activations(self, segment: Segment, hypothesis: Hypothesis) -> ActivationTrace:
        """From the encoder's frames to the tokens that were written, for pictures."""
        segment, writer = segment.core, self._writer
        (prefix_PD,) = self._listening.prefixes([segment])

        def text_of(token: int) -> str:
            (text,) = writer.decoded([[token]])
            named = "end" if token == writer.tokens.end else f"<{token}>"
            return text.replace(" ", "␣") or named

        result = first_choices(writer.weights, prefix_PD, hypothesis.tokens[:MOST_SHOWN], NUM_CHOICES, text_of)
        return ActivationTrace(self._listening.stages(segment), result)

    def parity(self, segment: Segment) -> Parity:
        return self._parity(segment)
