"""Autoregressive models: what decodes token after token, in more than one way, and the policy by which it decodes again.

Source of the policy: openai/whisper transcribe.py `decode_with_fallback`, which samples at rising temperatures; here the model
sees a longer context.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from audiomill.audio.cutting.segment import Segment
from audiomill.config.defaults import SECOND_PASS_LEVEL
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import OnProgress, Prediction, SpeechModel, no_progress
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.quality_checks import DecodingMetrics

_LONG_CONTEXT = DecodingOptions(fallback_level=1, context="long", stops_repetition=True, decodes_trailing_speech=True)
"""Of the same model. The whole window gave the same word error rate on 13,041 words and cost three times as much; sampling at
temperatures 0.4 and 0.8 and beam search, which openai/whisper adds, changed no word (tiny.en, `benchmarks/results/words.json`)."""
_SECOND_PASS = DecodingOptions(fallback_level=SECOND_PASS_LEVEL, stops_repetition=True, decodes_trailing_speech=True)
"""Full window of the second model, where there is one."""


class AutoregressiveModel(SpeechModel):
    """See `audiomill.models.base.SpeechModel`. What its families share: a first pass, and decoding with other options.

    Args:
        first: options of the first pass.
        text: options of texts; None: none is wanted.
        second: another model of the same vocabulary, the last fallback level.
        recovery: None: nobody looks for speech that was left out.
    """

    pads_rows_alone = True

    def __init__(
        self,
        first: DecodingOptions,
        text: TranscriptConfig | None,
        second: AutoregressiveModel | None = None,
        recovery: DeletionRecovery | None = None,
    ) -> None:
        self._first = first
        if text is not None and text.fallback:
            self.fallback = FallbackPolicy(model=self, first=first, checks=text, second=second, recovery=recovery)

    def context(self, num_samples: int, options: DecodingOptions) -> int:
        """Samples that the encoder is shown of a segment, a function of the segment alone; by default just those."""
        return num_samples

    def padded_length(self, num_samples: int) -> int:
        return self.context(num_samples, self._first)

    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Tokens, vectors and codes, whichever are wanted. Where text is wanted a segment's context is not looked at."""
        return self.forward_with_progress(batch, no_progress)

    @abstractmethod
    def forward_with_progress(self, batch: Sequence[Segment], on_progress: OnProgress) -> list[Prediction]:
        """The same; reports a row when its text is decoded."""

    @abstractmethod
    def decode(self, batch: Sequence[Segment], options: DecodingOptions) -> list[Hypothesis]:
        """Tokens of a batch."""

    @abstractmethod
    def metrics(self, segments: Sequence[Segment], hypotheses: Sequence[Hypothesis]) -> list[DecodingMetrics]:
        """What the decoder knows about each text."""


class DeletionRecovery(Protocol):
    """Finds speech that a text says nothing of."""

    def find_deletions(self, row: int, segment: Segment, hypothesis: Hypothesis) -> list[Any]:
        """Parts of a segment, each with its `segment` and the `row` of the hypothesis; none where the text is whole."""
        ...

    def fill_deletions(self, hypothesis: Hypothesis, parts: Sequence[tuple[Any, Hypothesis]]) -> Hypothesis:
        """The texts of the parts of a segment in place of its own, where they say more."""
        ...


class FallbackLevel(NamedTuple):
    """One more way to decode."""

    model: AutoregressiveModel
    options: DecodingOptions


@dataclass(frozen=True, kw_only=True)
class FallbackPolicy:
    """How a model decodes again what does not pass its checks.

    Attributes:
        model: decodes.
        first: how it decoded the first time.
        checks: thresholds, and what becomes of texts that pass at no level.
        second: another model of the same vocabulary, the last level.
        recovery: None: nobody looks for speech that was left out.
    """

    model: AutoregressiveModel
    first: DecodingOptions
    checks: TranscriptConfig
    second: AutoregressiveModel | None = None
    recovery: DeletionRecovery | None = None

    @property
    def levels(self) -> list[FallbackLevel]:
        """In the order in which they are tried."""
        again = FallbackLevel(self.model, replace(_LONG_CONTEXT, num_beams=self.first.num_beams))
        return [again] if self.second is None else [again, FallbackLevel(self.second, _SECOND_PASS)]
