"""Temperature fallback: texts that fail their quality checks are decoded again, in the full window, sampled, by beam search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from audiomill.config.defaults import SECOND_PASS_LEVEL
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import Prediction, Utterance
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.language_smoothing import smooth_languages
from audiomill.models.seq2seq.quality_checks import (
    DecodingMetrics,
    failed_checks,
    is_better,
    is_not_worth_retrying,
    is_silence,
    is_unsure,
)

_FALLBACK_LEVELS = (
    DecodingOptions(fallback_level=1, stops_repetition=True, decodes_trailing_speech=True),
    DecodingOptions(fallback_level=2, temperature=0.4, stops_repetition=True, decodes_trailing_speech=True),
    DecodingOptions(fallback_level=3, temperature=0.8, stops_repetition=True, decodes_trailing_speech=True),
    DecodingOptions(fallback_level=4, num_beams=5, decodes_trailing_speech=True),
)
"""Full window, sampled twice, beam search."""
SECOND_PASS = DecodingOptions(fallback_level=SECOND_PASS_LEVEL, stops_repetition=True, decodes_trailing_speech=True)
"""Full window of the second model, where there is one."""
SILENCE = "silence"


class FallbackDecoder(Protocol):
    """What temperature fallback needs of a model."""

    def padded_length(self, num_samples: int) -> int:
        """Samples that its first answer was shown."""
        ...

    def context(self, num_samples: int, options: DecodingOptions) -> int:
        """Samples that it is shown of a segment."""
        ...

    def decode(self, batch: Sequence[Utterance], options: DecodingOptions) -> list[Hypothesis]:
        """Tokens of a batch."""
        ...

    def metrics(self, utterances: Sequence[Utterance], texts: Sequence[Hypothesis]) -> list[DecodingMetrics]:
        """What the decoder knows about each text."""
        ...


class DeletionRecovery(Protocol):
    """What knows where speech is that a text says nothing of."""

    def find_deletions(self, row: int, utterance: Utterance, hypothesis: Hypothesis) -> list[Any]:
        """See `audiomill.models.base.Ladder`."""
        ...

    def fill_deletions(self, hypothesis: Hypothesis, parts: Sequence[tuple[Any, Hypothesis]]) -> Hypothesis:
        """What was found in the parts of a segment in place of its text, where that says more."""
        ...


class TemperatureFallback:
    """See `audiomill.models.base.Ladder`.

    Args:
        model: decodes.
        text: thresholds of the checks.
        second: another model of the same vocabulary, the last level.
        rereading: finds speech that was left out; None: nobody looks.
    """

    def __init__(
        self,
        model: FallbackDecoder,
        text: TranscriptConfig,
        second: FallbackDecoder | None = None,
        rereading: DeletionRecovery | None = None,
    ) -> None:
        self._model, self._text, self._second, self._rereading = model, text, second, rereading

    @property
    def num_levels(self) -> int:
        return len(_FALLBACK_LEVELS) + (self._second is not None)

    def find_failed(
        self, utterances: Sequence[Utterance], answers: Sequence[Prediction], fallback_level: int
    ) -> list[int]:
        """Texts that fail a check or are unsure, but for those made of silence: there is nothing to hear better.

        What two levels agree on is left, and what is hopeless, unless another model may say something else.
        """
        is_second = self._second is not None and fallback_level == self.num_levels
        results = []
        for index, metrics in enumerate(self._metrics(utterances, answers)):
            failed = failed_checks(metrics, self._text)
            if not (failed or is_unsure(metrics, fallback_level)) or is_silence(metrics, self._text):
                continue
            if is_second or not (
                answers[index].text.is_agreed or is_not_worth_retrying(metrics, failed, fallback_level)
            ):
                results.append(index)
        return results

    def smooth_language_id(self, utterances: Sequence[Utterance], answers: Sequence[Prediction]) -> list[Utterance]:
        """See `audiomill.models.seq2seq.language_smoothing.smooth_languages`: a segment that is hard to tell takes the language of those around it."""
        tracks: defaultdict[tuple[str, int | None], list[int]] = defaultdict(list)
        for index, answer in enumerate(answers):
            if answer.text.languages is not None:
                tracks[utterances[index].track].append(index)
        results = list(utterances)
        for rows in tracks.values():
            rows.sort(key=lambda index: utterances[index].start)
            for index, code in zip(rows, smooth_languages([answers[i].text.languages for i in rows]), strict=True):
                results[index] = utterances[index]._replace(language=code)
        return results

    def needs_redecoding(self, utterance: Utterance, answer: Prediction) -> bool:
        return answer.text.languages is not None and utterance.language != answer.text.language

    def replace_text(self, before: Prediction, after: Prediction) -> Prediction:
        """Readouts and probabilities of languages stay those of the first answer."""
        languages = before.text.languages
        if languages is None:
            return before._replace(text=after.text)
        probability = languages.get(after.text.language, 0.0)
        return before._replace(text=after.text._replace(languages=languages, language_probability=probability))

    def padded_length(self, num_samples: int, fallback_level: int) -> int:
        options = self._options(fallback_level)
        return self._model.context(num_samples, options) * options.num_beams

    def _options(self, fallback_level: int) -> DecodingOptions:
        return _FALLBACK_LEVELS[fallback_level - 1] if fallback_level <= len(_FALLBACK_LEVELS) else SECOND_PASS

    def forward(self, batch: Sequence[Utterance], fallback_level: int) -> list[Prediction]:
        """Decodes again. What was read off the first answer's hidden states stays there: see `choose_better`."""
        if fallback_level > len(_FALLBACK_LEVELS):
            assert self._second is not None, "levels end with those of one model otherwise"
            return [Prediction(redecoded) for redecoded in self._second.decode(batch, SECOND_PASS)]
        if fallback_level > 1:
            return [
                Prediction(redecoded) for redecoded in self._model.decode(batch, _FALLBACK_LEVELS[fallback_level - 1])
            ]
        window = self._model.context(0, _FALLBACK_LEVELS[0])
        # Long segments were shown the full window at once: the first answer was this one.
        is_fresh = [self._model.padded_length(len(utterance.pcm_T)) < window for utterance in batch]
        fresh = [utterance for utterance, wanted in zip(batch, is_fresh, strict=True) if wanted]
        redecoded = iter(self._model.decode(fresh, _FALLBACK_LEVELS[0]) if fresh else ())
        return [Prediction(next(redecoded) if wanted else None) for wanted in is_fresh]

    def choose_better(
        self, utterances: Sequence[Utterance], before: Sequence[Prediction], after: Sequence[Prediction]
    ) -> list[Prediction]:
        """Fewer failed checks win, then what is surer. Of the same tokens the first stays: the last bits of
        their log-probabilities depend on how many rows were beside them."""
        agreed = [n.text is not None and n.text.tokens == o.text.tokens for o, n in zip(before, after, strict=True)]
        news = zip(before, after, agreed, strict=True)
        again = [old if is_agreed or new.text is None else new for old, new, is_agreed in news]
        pairs = zip(before, again, self._metrics(utterances, before), self._metrics(utterances, again), strict=True)
        better = [self.replace_text(old, new) if is_better(b, a, self._text) else old for old, new, a, b in pairs]
        return [
            answer._replace(text=answer.text._replace(is_agreed=is_agreed))
            for answer, is_agreed in zip(better, agreed, strict=True)
        ]

    def find_deletions(self, utterances: Sequence[Utterance], answers: Sequence[Prediction]) -> list[Any]:
        """See `audiomill.models.base.Ladder`; of texts that stand for nothing no more is asked."""
        deletions: list[Any] = []
        if self._rereading is None:
            return deletions
        for row, metrics in enumerate(self._metrics(utterances, answers)):
            if not is_silence(metrics, self._text):
                deletions += self._rereading.find_deletions(row, utterances[row], answers[row].text)
        return deletions

    def fill_deletions(
        self, parts: Sequence[Any], predictions: Sequence[Prediction], answers: Sequence[Prediction]
    ) -> list[Prediction]:
        """See `audiomill.models.base.Ladder`."""
        assert self._rereading is not None, "parts were found"
        of: defaultdict[int, list[tuple[Any, Hypothesis]]] = defaultdict(list)
        for part, answer in zip(parts, predictions, strict=True):
            of[part.row].append((part, answer.text))
        texts = {index: self._rereading.fill_deletions(answers[index].text, pairs) for index, pairs in of.items()}
        return [
            answer._replace(text=texts[index]) if index in texts else answer for index, answer in enumerate(answers)
        ]

    def finalize(self, utterances: Sequence[Utterance], texts: Sequence[Hypothesis]) -> list[Hypothesis]:
        """Marks what fails at every level, and empties what is made of silence (or of doubt, by option)."""
        results = []
        for hypothesis, metrics in zip(texts, self._model.metrics(utterances, texts), strict=True):
            if is_silence(metrics, self._text):
                results.append(
                    _emptied(hypothesis, (SILENCE,)) if any(s.decoded.tokens for s in hypothesis.chunks) else hypothesis
                )
                continue
            failed = failed_checks(metrics, self._text)
            is_dropped = bool(failed) and self._text.low_confidence == "drop"
            results.append(_emptied(hypothesis, failed) if is_dropped else hypothesis._replace(failed_checks=failed))
        return results

    def _metrics(self, utterances: Sequence[Utterance], answers: Sequence[Prediction]) -> list[DecodingMetrics]:
        return self._model.metrics(utterances, [answer.text for answer in answers])


def _emptied(hypothesis: Hypothesis, failed_checks: tuple[str, ...]) -> Hypothesis:
    """Without its words; what was known about them stays."""
    chunks = tuple(
        s._replace(decoded=s.decoded._replace(tokens=[], logprobs=[]), timed=None) for s in hypothesis.chunks
    )
    return hypothesis._replace(chunks=chunks, failed_checks=failed_checks)
