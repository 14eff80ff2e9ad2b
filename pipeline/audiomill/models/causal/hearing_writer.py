"""Models that hear, and then write as a language model does: audio stands in front of the text.

P prefix, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from audiomill.config.text import TranscriptConfig
from audiomill.models.base import Aligner, Answer, Ladder, OnHeard, Packer, Parity, Transcript, Utterance
from audiomill.models.causal.way import Stage, Way, first_choices
from audiomill.models.pulse import beat
from audiomill.models.seq2seq.gates import Signals
from audiomill.models.seq2seq.heard import Heard, How
from audiomill.models.seq2seq.ladder import GateLadder
from audiomill.models.seq2seq.writing import Writer, Writing, core

MOST_SHOWN, NUM_CHOICES = 60, 5
"""Tokens of a picture, and choices of each."""


class Listening(Protocol):
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


class HearingWriter:
    """See `audiomill.models.base.SpeechModel`.

    Args:
        listening: audio -> prefixes.
        writer: the language model's side.
        wanted: options of texts.
        memory_fraction: share of the device's free memory to plan for.
        parity: compares one utterance with transformers' own model.
    """

    on_heard: OnHeard | None = None
    tells_rows = pads_rows_alone = True
    packer: Packer | None = None
    aligner: Aligner | None = None
    ladder: Ladder | None = None

    def __init__(
        self,
        listening: Listening,
        writer: Writer,
        wanted: TranscriptConfig,
        memory_fraction: float,
        parity: Callable[[Utterance], Parity],
    ) -> None:
        self._listening, self._parity, self._writer = listening, parity, writer
        self._writing = Writing(writer, wanted, memory_fraction)
        self._first = How(stops_loops=wanted.retry)
        if wanted.retry:
            self.ladder = GateLadder(self, wanted)

    def padded_length(self, num_samples: int) -> int:
        return self._listening.padded_length(num_samples)

    def context(self, num_samples: int, how: How) -> int:
        """The encoder is shown the segment, however its text is written."""
        return num_samples

    def spare_memory(self) -> None:
        self._writing.spare_memory()

    def forward(self, batch: Sequence[Utterance]) -> list[Answer]:
        """Tokens. A segment's context is not looked at."""
        return [Answer(heard) for heard in self.decode(batch, self._first)]

    @torch.inference_mode()
    def decode(self, batch: Sequence[Utterance], how: How) -> list[Heard]:
        """Tokens of one batch."""
        cores = [core(utterance) for utterance in batch]
        beat()
        return self._writing.written(cores, self._listening.prefixes(cores), how, self.on_heard)

    def signals(self, utterances: Sequence[Utterance], texts: Sequence[Heard]) -> list[Signals]:
        """What the language model knows about each text."""
        return self._writing.signals(utterances, texts)

    def transcripts(self, utterances: Sequence[Utterance], texts: Sequence[Heard]) -> list[Transcript]:
        """Texts, without times of words."""
        return self._writing.transcripts(texts)

    @torch.inference_mode()
    def way(self, utterance: Utterance, heard: Heard) -> Way:
        """From the encoder's frames to the tokens that were written, for pictures."""
        utterance, writer = core(utterance), self._writer
        (prefix_PD,) = self._listening.prefixes([utterance])

        def text_of(token: int) -> str:
            (text,) = writer.decoded([[token]])
            named = "end" if token == writer.tokens.end else f"<{token}>"
            return text.replace(" ", "␣") or named

        found = first_choices(writer.weights, prefix_PD, heard.tokens[:MOST_SHOWN], NUM_CHOICES, text_of)
        return Way(self._listening.stages(utterance), found)

    def parity(self, utterance: Utterance) -> Parity:
        return self._parity(utterance)
