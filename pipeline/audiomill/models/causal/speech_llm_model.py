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
from audiomill.models.base import OnProgress, Parity, Readout
from audiomill.models.causal.activation_trace import ActivationTrace, Stage, first_choices
from audiomill.models.seq2seq.generation import DecoderAdapter, Generator
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.model import GeneratingModel
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


class SpeechLLM(GeneratingModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        listening: audio -> prefixes.
        writer: the language model's side.
        wanted: options of texts.
        memory_fraction: share of the device's free memory to plan for.
        parity: compares one segment with transformers' own model.
    """

    def __init__(
        self,
        listening: AudioPrefixEncoder,
        writer: DecoderAdapter,
        wanted: TranscriptConfig,
        memory_fraction: float,
        parity: Callable[[Segment], Parity],
    ) -> None:
        self._listening, self._parity, self._writer = listening, parity, writer
        first = DecodingOptions(stops_repetition=wanted.fallback)
        super().__init__(Generator(writer, wanted, memory_fraction), first, wanted)

    def padded_length(self, num_samples: int) -> int:
        return self._listening.padded_length(num_samples)

    def _encode(self, batch: Sequence[Segment], on_progress: OnProgress) -> list[tuple[Tensor, Readout]]:
        heartbeat()
        return [(prefix_PD, Readout()) for prefix_PD in self._listening.prefixes(batch)]

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
