"""Speech LLMs: a language model decodes text behind a prefix of encoded audio.

P prefix, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from audiomill.config.text import TranscriptConfig
from audiomill.models.base import Aligner, FallbackPolicy, OnProgress, Parity, Prediction, Transcript, Utterance
from audiomill.models.causal.activation_trace import ActivationTrace, Stage, first_choices
from audiomill.models.seq2seq.generation import DecoderAdapter, Generator, core
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.quality_checks import DecodingMetrics
from audiomill.models.seq2seq.temperature_fallback import TemperatureFallback
from audiomill.models.watchdog import heartbeat

MOST_SHOWN, NUM_CHOICES = 60, 5
"""Tokens of a picture, and choices of each."""


class AudioPrefixEncoder(Protocol):
    """Audio -> what the language model begins with."""

    def padded_length(self, num_samples: int) -> int:
        """Samples that an utterance of this length occupies in a batch."""
        ...

    def prefixes(self, batch: Sequence[Utterance]) -> list[Tensor]:
        """prefix_PD of each utterance: prompt and audio. The same whatever is beside it."""
        ...

    def stages(self, utterance: Utterance) -> tuple[Stage, ...]:
        """What is heard on the way to the prefix."""
        ...


class SpeechLLM:
    """See `audiomill.models.base.SpeechModel`.

    Args:
        listening: audio -> prefixes.
        writer: the language model's side.
        wanted: options of texts.
        memory_fraction: share of the device's free memory to plan for.
        parity: compares one utterance with transformers' own model.
    """

    on_progress: OnProgress | None = None
    reports_progress = pads_rows_alone = True
    aligner: Aligner | None = None
    fallback: FallbackPolicy | None = None

    def __init__(
        self,
        listening: AudioPrefixEncoder,
        writer: DecoderAdapter,
        wanted: TranscriptConfig,
        memory_fraction: float,
        parity: Callable[[Utterance], Parity],
    ) -> None:
        self._listening, self._parity, self._writer = listening, parity, writer
        self._writing = Generator(writer, wanted, memory_fraction)
        self._first = DecodingOptions(stops_repetition=wanted.temperature_fallback)
        if wanted.temperature_fallback:
            self.fallback = TemperatureFallback(self, wanted)

    def padded_length(self, num_samples: int) -> int:
        return self._listening.padded_length(num_samples)

    def context(self, num_samples: int, options: DecodingOptions) -> int:
        """The encoder is shown the segment, however its text is written."""
        return num_samples

    def spare_memory(self) -> None:
        self._writing.spare_memory()

    def forward(self, batch: Sequence[Utterance]) -> list[Prediction]:
        """Tokens. A segment's context is not looked at."""
        return [Prediction(hypothesis) for hypothesis in self.decode(batch, self._first)]

    @torch.inference_mode()
    def decode(self, batch: Sequence[Utterance], options: DecodingOptions) -> list[Hypothesis]:
        """Tokens of one batch."""
        cores = [core(utterance) for utterance in batch]
        heartbeat()
        return self._writing.written(cores, self._listening.prefixes(cores), options, self.on_progress)

    def metrics(self, utterances: Sequence[Utterance], texts: Sequence[Hypothesis]) -> list[DecodingMetrics]:
        """What the language model knows about each text."""
        return self._writing.metrics(utterances, texts)

    def transcripts(self, utterances: Sequence[Utterance], texts: Sequence[Hypothesis]) -> list[Transcript]:
        """Texts, without times of words."""
        return self._writing.transcripts(texts)

    @torch.inference_mode()
    def activations(self, utterance: Utterance, hypothesis: Hypothesis) -> ActivationTrace:
        """From the encoder's frames to the tokens that were written, for pictures."""
        utterance, writer = core(utterance), self._writer
        (prefix_PD,) = self._listening.prefixes([utterance])

        def text_of(token: int) -> str:
            (text,) = writer.decoded([[token]])
            named = "end" if token == writer.tokens.end else f"<{token}>"
            return text.replace(" ", "␣") or named

        result = first_choices(writer.weights, prefix_PD, hypothesis.tokens[:MOST_SHOWN], NUM_CHOICES, text_of)
        return ActivationTrace(self._listening.stages(utterance), result)

    def parity(self, utterance: Utterance) -> Parity:
        return self._parity(utterance)
