"""The text side of models that write a segment token by token: encoded rows -> texts, and what is known of them.

B batch, F frames, P prefix, D width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audiomill.config.text import TranscriptConfig
from audiomill.errors import RunFailed
from audiomill.models.base import Candidate, OnHeard, Transcript, Utterance
from audiomill.models.finite import not_finite
from audiomill.models.seq2seq.beam.beams import Ranked, decode_with_beams
from audiomill.models.seq2seq.beam.fusion import Fusion
from audiomill.models.seq2seq.cross import Crossed, crossed
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.gates import Signals
from audiomill.models.seq2seq.heard import Heard, How, Stretch, mean_logprob, seed_of, signals_of
from audiomill.models.seq2seq.memory import Shapes, free_bytes, rows_that_fit
from audiomill.models.seq2seq.special_tokens import SpecialTokens
from audiomill.models.seq2seq.stepping import decode
from audiomill.models.seq2seq.table import Decoded, Entry, Search, Table

MAX_ROWS = {"cpu": 64, "cuda": 256}
"""Rows that are decoded at a time: more do not make a step cheaper."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """The decoder's side.

    Attributes:
        weights: see there.
        tokens: special ones.
        decoded: rows of tokens -> texts, without special tokens.
        language: of a segment, by what is known of it.
        prompt: by that language -> tokens that the decoder is started with, equally many for all; none where rows begin with
            them already.
        pieces: every token as its vocabulary spells it, where words can be told while they are written; None: they cannot.
        told: a text as it is written -> the text, and the language that it names; by default it names none.
    """

    weights: DecoderWeights
    tokens: SpecialTokens
    decoded: Callable[[list[list[int]]], list[str]]
    language: Callable[[Utterance], str | None]
    prompt: Callable[[str | None], list[int]]
    pieces: Sequence[str] | None = None
    told: Callable[[str], tuple[str, str | None]] = lambda text: (text, None)


class Writing:
    """Writes texts of encoded rows.

    Args:
        writer: the decoder's side.
        wanted: options of texts.
        memory_fraction: share of the device's free memory to plan for.
        fusion: beside beams that were asked for; None: none were.
    """

    def __init__(
        self, writer: Writer, wanted: TranscriptConfig, memory_fraction: float, fusion: Fusion | None = None
    ) -> None:
        self._writer, self._wanted, self._memory_fraction, self._fusion = writer, wanted, memory_fraction, fusion
        self._halved = 1

    def spare_memory(self) -> None:
        """Half the rows at a time."""
        self._halved *= 2

    @torch.inference_mode()
    def written(
        self, batch: Sequence[Utterance], rows: Sequence[Tensor], how: How, on_heard: OnHeard | None
    ) -> list[Heard]:
        """Tokens of each row: what the encoder made of it (F x D), or what its text begins with (P x D).

        Raises:
            RunFailed: the model gives values that are no numbers, or has no room for a text behind its audio.
        """
        writer, weights = self._writer, self._writer.weights
        languages = [writer.language(utterance) for utterance in batch]
        prompts = [writer.prompt(language) for language in languages]
        found: dict[int, Decoded] = {}
        nbest: dict[int, tuple[Candidate, ...]] = {}
        waiting = deque(sorted(range(len(batch)), key=lambda row: -len(rows[row])))

        def next_entry(most: int, _frames: int | None) -> Entry | None:
            """Rows of equal length, which begin together."""
            names: list[int] = []
            while waiting and len(names) < most and len(rows[waiting[0]]) == len(rows[(names or waiting)[0]]):
                names.append(waiting.popleft())
            if not names:
                return None
            seeds = [seed_of(batch[name], 0, how.rung) for name in names]
            begins = self._begins(torch.stack([rows[name] for name in names]))
            return Entry(begins, [prompts[name] for name in names], names, seeds)

        def done(name: int, decoded: Decoded) -> None:
            if math.isnan(decoded.sum_logprob):
                raise not_finite("the decoder's logits")
            found[name] = decoded
            if on_heard is not None:
                on_heard(1, len(batch[name].pcm_T))

        search, longest = self._search(how), max(map(len, rows))
        length = len(prompts[0]) if weights.looks else longest
        if length >= weights.max_positions:
            raise RunFailed(
                f"a segment takes {length} of the {weights.max_positions} positions that the language model knows; expected room for "
                "a text behind it: cut shorter, --max-segment-seconds"
            )
        most = self._most_rows(longest)
        if how.num_beams == 1:
            decode(Table(weights, search, min(most, len(batch)), length), next_entry, done)
        fusion = self._fusion if how.is_fused else None
        while (entry := next_entry(max(1, most // how.num_beams), None)) is not None:
            better = decode_with_beams(weights, entry.begins, entry.prompts, search, how.num_beams, fusion)
            for name, ranked in zip(entry.names, better, strict=True):
                if fusion is not None:
                    ranked, nbest[name] = self._weighed(ranked, fusion)
                done(name, ranked[0].decoded)
        return [
            Heard((Stretch(0, found[row]),), language, None, rung=how.rung, nbest=nbest.get(row))
            for row, language in enumerate(languages)
        ]

    def _weighed(self, ranked: list[Ranked], fusion: Fusion) -> tuple[list[Ranked], tuple[Candidate, ...]]:
        """Texts in the order of what everybody thinks of them, and what is kept of that."""
        texts = [" ".join(text.split()) for text in self._writer.decoded([each.decoded.tokens for each in ranked])]
        weighed = fusion.rescored(texts)
        rescored: Sequence[float | None] = [None] * len(texts) if weighed is None else weighed
        scores = [fusion.with_rescored(each.score, more) for each, more in zip(ranked, rescored, strict=True)]
        order = sorted(range(len(ranked)), key=lambda at: (-scores[at], texts[at]))
        listed = [
            Candidate(
                text=texts[at],
                acoustic=ranked[at].decoded.sum_logprob,
                lm=ranked[at].lm,
                num_words=ranked[at].num_words,
                hotwords=0,
                rescored=rescored[at],
                score=scores[at],
            )
            for at in order[: fusion.num_best]
        ]
        return [ranked[at] for at in order], tuple(listed)

    def _begins(self, rows_BFD: Tensor) -> Crossed | Tensor:
        return crossed(self._writer.weights, rows_BFD) if self._writer.weights.looks else rows_BFD

    def _search(self, how: How) -> Search:
        return Search(
            tokens=self._writer.tokens,
            timestamps=False,
            max_new_tokens=self._wanted.max_new_tokens,
            temperature=how.temperature,
            stops_loops=how.stops_loops,
        )

    def _most_rows(self, frames: int) -> int:
        weights, tokens = self._writer.weights, self._writer.tokens
        shapes = Shapes(
            width=weights.size_of_head * weights.num_key_heads,
            decoder_layers=len(weights.layers),
            vocabulary=tokens.size,
            value_bytes=weights.dtype.itemsize,
        )
        budget = self._memory_fraction * free_bytes(weights.device)
        return max(1, rows_that_fit(shapes, budget, frames, frames, MAX_ROWS[weights.device.type]) // self._halved)

    def _texts(self, found: Sequence[Heard]) -> list[tuple[str, str | None]]:
        return [self._writer.told(text) for text in self._writer.decoded([heard.tokens for heard in found])]

    def signals(self, utterances: Sequence[Utterance], found: Sequence[Heard]) -> list[Signals]:
        """What the decoder knows about each text."""
        return signals_of(utterances, found, [text for text, _ in self._texts(found)], [0.0] * len(found))

    def transcripts(self, found: Sequence[Heard]) -> list[Transcript]:
        """Texts; words have no times, because nothing says how well this decoder's attention tells them."""
        return [
            Transcript(
                text=" ".join(text.split()),
                language=heard.language or language,
                language_probability=None,
                avg_logprob=mean_logprob(heard),
                no_speech_prob=None,
                words=None,
                phrases=None,
                rung=heard.rung,
                gates=heard.gates,
                confidence=math.exp(mean_logprob(heard)),
                nbest=heard.nbest,
            )
            for heard, (text, language) in zip(found, self._texts(found), strict=True)
        ]


def core(utterance: Utterance) -> Utterance:
    """Without its context."""
    stop = len(utterance.pcm_T) - utterance.right
    return utterance._replace(pcm_T=utterance.pcm_T[utterance.left : stop], left=0, right=0)
