"""Autoregressive generation: encoded rows -> hypotheses -> transcripts.

B batch, F frames, P prefix, D width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.errors import RunError
from audiomill.models.base import Candidate, OnProgress, Transcript
from audiomill.models.device import available_memory
from audiomill.models.finite import not_finite
from audiomill.models.seq2seq.beam.beams import Ranked, decode_with_beams
from audiomill.models.seq2seq.beam.fusion import Fusion
from audiomill.models.seq2seq.continuous_batching import decode_rows
from audiomill.models.seq2seq.cross_attention_cache import cross_kv
from audiomill.models.seq2seq.decode_slots import DecodedTokens, DecodeRequest, DecodeSlots, Search
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.hypothesis import (
    DecodedChunk,
    DecodingOptions,
    Hypothesis,
    mean_logprob,
    metrics_of,
)
from audiomill.models.seq2seq.quality_checks import DecodingMetrics
from audiomill.models.seq2seq.special_tokens import SpecialTokens

MAX_POSITIONS = 448
ENCODER_WIDTHS = 16
"""Activations of an encoder layer at its widest, in model widths a frame: input, norm, qkv, attention, four times wider
layer before and behind its nonlinearity."""
LOGIT_COPIES = 6
"""Of a step: logits in two types, masked, their logarithms of probabilities."""


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Of a checkpoint; `value_bytes`: of an activation."""

    width: int
    decoder_layers: int
    vocabulary: int
    value_bytes: int

    def row_bytes(self, frames: int, positions: int = MAX_POSITIONS) -> int:
        """A row of the decoder: what it looks at, what it remembers, its logits, and the output of the encoder."""
        remembered = 2 * self.decoder_layers * (frames + positions) * self.width * self.value_bytes
        return remembered + LOGIT_COPIES * 4 * self.vocabulary + frames * self.width * self.value_bytes

    def encoder_bytes(self, num_frames: int) -> int:
        """Activations of so many frames in the encoder, and what the decoder is given of them."""
        widths = ENCODER_WIDTHS + 2 * self.decoder_layers
        return widths * num_frames * self.width * self.value_bytes


def shapes_of(model: Any) -> Shapes:
    """Of a `WhisperForConditionalGeneration`."""
    config = model.config
    return Shapes(
        width=config.d_model,
        decoder_layers=config.decoder_layers,
        vocabulary=config.vocab_size,
        value_bytes=model.dtype.itemsize,
    )


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def rows_that_fit(shapes: Shapes, budget: float, frames: int, encoder_frames: int, most: int) -> int:
    """Rows that may be decoded at a time.

    Args:
        shapes: of the checkpoint.
        budget: bytes.
        frames: longest row, in encoder frames.
        encoder_frames: of an encoder batch, which runs beside.
        most: more do not help.
    """
    left = budget - shapes.encoder_bytes(encoder_frames)
    return max(1, min(most, int(left // shapes.row_bytes(frames))))


def predicted_bytes(shapes: Shapes, num_rows: int, frames: int, encoder_frames: int) -> int:
    """Peak beyond the weights."""
    return num_rows * shapes.row_bytes(frames) + shapes.encoder_bytes(encoder_frames)


MAX_ROWS = {"cpu": 64, "cuda": 256}
"""Rows that are decoded at a time: more do not make a step cheaper."""


@dataclass(frozen=True, kw_only=True)
class DecoderAdapter:
    """The decoder's side.

    Attributes:
        weights: see there.
        tokens: special ones.
        decoded: rows of tokens -> texts, without special tokens.
        language: of a segment, by what is known of it.
        prompt: by that language -> tokens that the decoder is started with, equally many for all; none where rows begin with
            them already.
        pieces: every token as its vocabulary spells it, where words can be told while they are written; None: they cannot.
        parse_reply: a text as it is written -> the text, and the language that it names; by default it names none.
    """

    weights: DecoderWeights
    tokens: SpecialTokens
    decoded: Callable[[list[list[int]]], list[str]]
    language: Callable[[Segment], str | None]
    prompt: Callable[[str | None], list[int]]
    pieces: Sequence[str] | None = None
    parse_reply: Callable[[str], tuple[str, str | None]] = lambda text: (text, None)


class _WaitingRows:
    """See `audiomill.models.seq2seq.continuous_batching.RowSource`: rows of equal length begin together, the longest first."""

    def __init__(
        self,
        writer: DecoderAdapter,
        batch: Sequence[Segment],
        rows: Sequence[Tensor],
        prompts: Sequence[list[int]],
        on_progress: OnProgress,
    ) -> None:
        self._weights, self._batch, self._rows = writer.weights, batch, rows
        self._prompts, self._on_progress = prompts, on_progress
        self.results: dict[int, DecodedTokens] = {}
        self._waiting = deque(sorted(range(len(batch)), key=lambda row: -len(rows[row])))

    def next_entry(self, most: int, frames: int | None = None) -> DecodeRequest | None:
        waiting, rows, names = self._waiting, self._rows, list[int]()
        while waiting and len(names) < most and len(rows[waiting[0]]) == len(rows[(names or waiting)[0]]):
            names.append(waiting.popleft())
        if not names:
            return None
        begins = torch.stack([rows[name] for name in names])
        has_cross = self._weights.has_cross_attention
        return DecodeRequest(
            cross_kv(self._weights, begins) if has_cross else begins,
            [self._prompts[name] for name in names],
            names,
        )

    def done(self, name: int, decoded: DecodedTokens) -> None:
        if math.isnan(decoded.sum_logprob):
            raise not_finite("the decoder's logits")
        self.results[name] = decoded
        self._on_progress(1, len(self._batch[name].pcm_T))


class Generator:
    """Writes texts of encoded rows.

    Args:
        writer: the decoder's side.
        wanted: options of texts.
        memory_fraction: share of the device's free memory to plan for.
        fusion: beside beams that were asked for; None: none were.
    """

    def __init__(
        self, writer: DecoderAdapter, wanted: TranscriptConfig, memory_fraction: float, fusion: Fusion | None = None
    ) -> None:
        self._writer, self._wanted, self._memory_fraction, self._fusion = writer, wanted, memory_fraction, fusion
        self._halved = 1

    def spare_memory(self) -> None:
        """Half the rows at a time."""
        self._halved *= 2

    @torch.inference_mode()
    def written(
        self,
        batch: Sequence[Segment],
        rows: Sequence[Tensor],
        options: DecodingOptions,
        on_progress: OnProgress,
    ) -> list[Hypothesis]:
        """Tokens of each row: what the encoder made of it (F x D), or what its text begins with (P x D).

        Raises:
            RunError: the model gives values that are no numbers, or has no room for a text behind its audio.
        """
        level = options.fallback_level
        languages = [self._writer.language(segment) for segment in batch]
        prompts = [self._writer.prompt(language) for language in languages]
        waiting = _WaitingRows(self._writer, batch, rows, prompts, on_progress)
        search, longest = self._search(options), max(map(len, rows))
        length = self._prompt_length(prompts, longest)
        nbest: dict[int, tuple[Candidate, ...]] = {}

        def beam_search(entry: DecodeRequest) -> Iterator[tuple[int, DecodedTokens]]:
            fusion = self._fusion if options.uses_fusion else None
            results = decode_with_beams(
                self._writer.weights, entry.begins, entry.prompts, search, options.num_beams, fusion
            )
            for name, ranked in zip(entry.names, results, strict=True):
                if fusion is not None:
                    ranked, nbest[name] = self._weighed(ranked, fusion)
                yield name, ranked[0].decoded

        def slots(most: int) -> DecodeSlots:
            return DecodeSlots(self._writer.weights, search, min(most, len(batch)), length)

        decode_rows(waiting, options.num_beams, self._most_rows(longest), slots, beam_search)
        return [
            Hypothesis(
                (DecodedChunk(0, waiting.results[row]),), language, None, fallback_level=level, nbest=nbest.get(row)
            )
            for row, language in enumerate(languages)
        ]

    def _prompt_length(self, prompts: Sequence[Sequence[int]], longest: int) -> int:
        """Positions before the text. Raises RunError where they leave no room for it."""
        weights = self._writer.weights
        length = len(prompts[0]) if weights.has_cross_attention else longest
        if length >= weights.max_positions:
            raise RunError(
                f"a segment takes {length} of the {weights.max_positions} positions that the language model knows; expected room for "
                "a text behind it: cut shorter, --max-segment-seconds"
            )
        return length

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

    def _search(self, options: DecodingOptions) -> Search:
        return Search(
            tokens=self._writer.tokens,
            timestamps=False,
            max_new_tokens=self._wanted.max_new_tokens,
            stops_repetition=options.stops_repetition,
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

    def _texts(self, hypotheses: Sequence[Hypothesis]) -> list[tuple[str, str | None]]:
        return [
            self._writer.parse_reply(text)
            for text in self._writer.decoded([hypothesis.tokens for hypothesis in hypotheses])
        ]

    def metrics(self, segments: Sequence[Segment], hypotheses: Sequence[Hypothesis]) -> list[DecodingMetrics]:
        """What the decoder knows about each text."""
        return metrics_of(segments, hypotheses, [text for text, _ in self._texts(hypotheses)], [0.0] * len(hypotheses))

    def transcripts(self, hypotheses: Sequence[Hypothesis]) -> list[Transcript]:
        """Texts; words have no times, because nothing says how well this decoder's attention tells them."""
        return [
            Transcript(
                text=" ".join(text.split()),
                language=hypothesis.language or language,
                language_probability=None,
                avg_logprob=mean_logprob(hypothesis),
                no_speech_prob=None,
                words=None,
                phrases=None,
                fallback_level=hypothesis.fallback_level,
                failed_checks=hypothesis.failed_checks,
                confidence=math.exp(mean_logprob(hypothesis)),
                nbest=hypothesis.nbest,
            )
            for hypothesis, (text, language) in zip(hypotheses, self._texts(hypotheses), strict=True)
        ]
