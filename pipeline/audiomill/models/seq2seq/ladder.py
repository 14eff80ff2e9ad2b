"""Second thoughts: which texts do not pass their gates, and the ways in which they are decoded again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from audiomill.config.defaults import SECOND_MODEL_RUNG
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import Answer, Utterance
from audiomill.models.seq2seq.gates import Signals, failed_gates, is_better, is_hopeless, is_silence, is_unsure
from audiomill.models.seq2seq.heard import Heard, How
from audiomill.models.seq2seq.languages import smoothed

_RUNGS = (
    How(rung=1, stops_loops=True, hears_out=True),
    How(rung=2, temperature=0.4, stops_loops=True, hears_out=True),
    How(rung=3, temperature=0.8, stops_loops=True, hears_out=True),
    How(rung=4, num_beams=5, hears_out=True),
)
"""Full window, sampled twice, beam search."""
SECOND = How(rung=SECOND_MODEL_RUNG, stops_loops=True, hears_out=True)
"""Full window of the second model, where there is one."""
SILENCE = "silence"


class Decoding(Protocol):
    """What a ladder needs of a model."""

    def padded_length(self, num_samples: int) -> int:
        """Samples that its first answer was shown."""
        ...

    def context(self, num_samples: int, how: How) -> int:
        """Samples that it is shown of a segment."""
        ...

    def decode(self, batch: Sequence[Utterance], how: How) -> list[Heard]:
        """Tokens of a batch."""
        ...

    def signals(self, utterances: Sequence[Utterance], texts: Sequence[Heard]) -> list[Signals]:
        """What the decoder knows about each text."""
        ...


class Rereading(Protocol):
    """What knows where speech is that a text says nothing of."""

    def left_out(self, row: int, utterance: Utterance, heard: Heard) -> list[Any]:
        """See `audiomill.models.base.Ladder`."""
        ...

    def filled(self, heard: Heard, parts: Sequence[tuple[Any, Heard]]) -> Heard:
        """What was found in the parts of a segment in place of its text, where that says more."""
        ...


class GateLadder:
    """See `audiomill.models.base.Ladder`.

    Args:
        model: decodes.
        text: thresholds of the gates.
        second: another model of the same vocabulary, the last rung.
        rereading: finds speech that was left out; None: nobody looks.
    """

    def __init__(
        self,
        model: Decoding,
        text: TranscriptConfig,
        second: Decoding | None = None,
        rereading: Rereading | None = None,
    ) -> None:
        self._model, self._text, self._second, self._rereading = model, text, second, rereading

    @property
    def num_rungs(self) -> int:
        return len(_RUNGS) + (self._second is not None)

    def failing(self, utterances: Sequence[Utterance], answers: Sequence[Answer], rung: int) -> list[int]:
        """Texts that fail a gate or are unsure, but for those made of silence: there is nothing to hear better.

        What two rungs agree on is left, and what is hopeless, unless another model may say something else.
        """
        is_second = self._second is not None and rung == self.num_rungs
        found = []
        for index, signals in enumerate(self._signals(utterances, answers)):
            gates = failed_gates(signals, self._text)
            if not (gates or is_unsure(signals, rung)) or is_silence(signals, self._text):
                continue
            if is_second or not (answers[index].text.is_agreed or is_hopeless(signals, gates, rung)):
                found.append(index)
        return found

    def told(self, utterances: Sequence[Utterance], answers: Sequence[Answer]) -> list[Utterance]:
        """See `languages.smoothed`: a segment that is hard to tell takes the language of those around it."""
        tracks: defaultdict[tuple[str, int | None], list[int]] = defaultdict(list)
        for index, answer in enumerate(answers):
            if answer.text.languages is not None:
                tracks[utterances[index].track].append(index)
        found = list(utterances)
        for rows in tracks.values():
            rows.sort(key=lambda index: utterances[index].start)
            for index, code in zip(rows, smoothed([answers[i].text.languages for i in rows]), strict=True):
                found[index] = utterances[index]._replace(language=code)
        return found

    def is_retold(self, utterance: Utterance, answer: Answer) -> bool:
        return answer.text.languages is not None and utterance.language != answer.text.language

    def replaced(self, before: Answer, after: Answer) -> Answer:
        """Readouts and probabilities of languages stay those of the first answer."""
        languages = before.text.languages
        if languages is None:
            return before._replace(text=after.text)
        probability = languages.get(after.text.language, 0.0)
        return before._replace(text=after.text._replace(languages=languages, language_probability=probability))

    def padded_length(self, num_samples: int, rung: int) -> int:
        how = self._how(rung)
        return self._model.context(num_samples, how) * how.num_beams

    def _how(self, rung: int) -> How:
        return _RUNGS[rung - 1] if rung <= len(_RUNGS) else SECOND

    def forward(self, batch: Sequence[Utterance], rung: int) -> list[Answer]:
        """Decodes again. What was read off the first answer's hidden states stays there: see `better`."""
        if rung > len(_RUNGS):
            assert self._second is not None, "rungs end with those of one model otherwise"
            return [Answer(heard) for heard in self._second.decode(batch, SECOND)]
        if rung > 1:
            return [Answer(heard) for heard in self._model.decode(batch, _RUNGS[rung - 1])]
        window = self._model.context(0, _RUNGS[0])
        # Long segments were shown the full window at once: the first answer was this one.
        is_fresh = [self._model.padded_length(len(utterance.pcm_T)) < window for utterance in batch]
        fresh = [utterance for utterance, wanted in zip(batch, is_fresh, strict=True) if wanted]
        heard = iter(self._model.decode(fresh, _RUNGS[0]) if fresh else ())
        return [Answer(next(heard) if wanted else None) for wanted in is_fresh]

    def better(
        self, utterances: Sequence[Utterance], before: Sequence[Answer], after: Sequence[Answer]
    ) -> list[Answer]:
        """Fewer failed gates win, then what is surer. Of the same tokens the first stays: the last bits of
        their log-probabilities depend on how many rows were beside them."""
        agreed = [n.text is not None and n.text.tokens == o.text.tokens for o, n in zip(before, after, strict=True)]
        news = zip(before, after, agreed, strict=True)
        again = [old if is_agreed or new.text is None else new for old, new, is_agreed in news]
        pairs = zip(before, again, self._signals(utterances, before), self._signals(utterances, again), strict=True)
        kept = [self.replaced(old, new) if is_better(b, a, self._text) else old for old, new, a, b in pairs]
        return [
            answer._replace(text=answer.text._replace(is_agreed=is_agreed))
            for answer, is_agreed in zip(kept, agreed, strict=True)
        ]

    def left_out(self, utterances: Sequence[Utterance], answers: Sequence[Answer]) -> list[Any]:
        """See `audiomill.models.base.Ladder`; of texts that stand for nothing no more is asked."""
        found: list[Any] = []
        if self._rereading is None:
            return found
        for row, signals in enumerate(self._signals(utterances, answers)):
            if not is_silence(signals, self._text):
                found += self._rereading.left_out(row, utterances[row], answers[row].text)
        return found

    def filled(self, parts: Sequence[Any], found: Sequence[Answer], answers: Sequence[Answer]) -> list[Answer]:
        """See `audiomill.models.base.Ladder`."""
        assert self._rereading is not None, "parts were found"
        of: defaultdict[int, list[tuple[Any, Heard]]] = defaultdict(list)
        for part, answer in zip(parts, found, strict=True):
            of[part.row].append((part, answer.text))
        texts = {index: self._rereading.filled(answers[index].text, pairs) for index, pairs in of.items()}
        return [
            answer._replace(text=texts[index]) if index in texts else answer for index, answer in enumerate(answers)
        ]

    def settled(self, utterances: Sequence[Utterance], texts: Sequence[Heard]) -> list[Heard]:
        """Marks what passes no rung, and empties what is made of silence (or of doubt, by option)."""
        found = []
        for heard, signals in zip(texts, self._model.signals(utterances, texts), strict=True):
            if is_silence(signals, self._text):
                found.append(_emptied(heard, (SILENCE,)) if any(s.decoded.tokens for s in heard.stretches) else heard)
                continue
            gates = failed_gates(signals, self._text)
            is_dropped = bool(gates) and self._text.low_confidence == "drop"
            found.append(_emptied(heard, gates) if is_dropped else heard._replace(gates=gates))
        return found

    def _signals(self, utterances: Sequence[Utterance], answers: Sequence[Answer]) -> list[Signals]:
        return self._model.signals(utterances, [answer.text for answer in answers])


def _emptied(heard: Heard, gates: tuple[str, ...]) -> Heard:
    """Without its words; what was known about them stays."""
    stretches = tuple(
        s._replace(decoded=s.decoded._replace(tokens=[], logprobs=[]), timed=None) for s in heard.stretches
    )
    return heard._replace(stretches=stretches, gates=gates)
