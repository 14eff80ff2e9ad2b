"""Whisper: log-mel, encoder, decoder, text with phrases and words; vectors and codes of the encoder's layers.

B batch, T samples, F frames, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.config.defaults import WINDOW_S
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import (
    OnProgress,
    Parity,
    Prediction,
    Readout,
    RequestedOutputs,
    TimedText,
    Transcript,
    no_progress,
)
from audiomill.models.seq2seq.autoregressive import AutoregressiveModel
from audiomill.models.seq2seq.beam.beams import decode_with_beams
from audiomill.models.seq2seq.continuous_batching import decode_rows
from audiomill.models.seq2seq.decode_slots import DecodedTokens, DecodeRequest, DecodeSlots, Search
from audiomill.models.seq2seq.generation import MAX_ROWS, free_bytes, rows_that_fit, shapes_of
from audiomill.models.seq2seq.hypothesis import (
    DecodingOptions,
    EncoderContext,
    Hypothesis,
    TimedToken,
    mean_logprob,
    metrics_of,
)
from audiomill.models.seq2seq.quality_checks import DecodingMetrics, failed_checks, is_silence
from audiomill.models.seq2seq.word_time_repair import repair_times
from audiomill.models.vectors.forward_hooks import without_layers_above
from audiomill.models.vectors.readout import CoreFrames, Quantizer, read_out
from audiomill.models.whisper.deletions import MIN_LOGPROB, MIN_MORE_WORDS, Part, deleted_parts, join_hypotheses
from audiomill.models.whisper.encode_decode import ENCODER_SECONDS, EncodeDecode, TaskOptions, weights_of
from audiomill.models.whisper.folder import WHISPER_HOP
from audiomill.models.whisper.language_identification import language_parts
from audiomill.models.whisper.timing import Heads
from audiomill.models.whisper.tokens import WhisperTokens, whisper_prompt_tokens
from audiomill.models.whisper.whisper_parity import whisper_parity
from audiomill.models.whisper.words import (
    Evidence,
    last_beginning,
    phrase_tokens,
    segment_confidence,
    word_confidence,
    words_of,
)
from audiomill.text.scripts import units

WINDOW_SAMPLES = samples_from_seconds(WINDOW_S)
CONTEXT_MARGIN_S: dict[EncoderContext, float] = {"short": 1.0, "long": 5.0}
CONTEXT_FLOOR_S: dict[EncoderContext, dict[str, float]] = {
    "short": {"cpu": 8.0, "cuda": 10.0},
    "long": {"cpu": 14.0, "cuda": 15.0},
}
CONTEXT_STEP_S = {"cpu": 2.0, "cuda": 5.0}
"""Of less than the window the encoder sees the segment, a margin and at least the floor, in steps of so much. A GPU decodes
rows of one context together, so it has few of them; see `benchmarks/results/short_context.json`."""


def has_short_context(text: TranscriptConfig) -> bool:
    """Whether the first pass sees a short context: what loops by it is mended by the fallback."""
    return text.encoder_context == "short" or (text.encoder_context == "auto" and text.fallback)


def context_samples(num_samples: int, context: EncoderContext, device: str) -> int:
    """Samples that the encoder is shown of a segment."""
    if context == "window":
        return WINDOW_SAMPLES
    step = samples_from_seconds(CONTEXT_STEP_S[device])
    floor = samples_from_seconds(CONTEXT_FLOOR_S[context][device])
    wanted = max(floor, num_samples + samples_from_seconds(CONTEXT_MARGIN_S[context]))
    return min(WINDOW_SAMPLES, -(-wanted // step) * step)


class WhisperCheckpoint(NamedTuple):
    """What a folder holds. `model`: `WhisperForConditionalGeneration`; `tokenizer`: of tokenizers; `heads`: alignment heads."""

    model: Any
    tokenizer: Any
    tokens: WhisperTokens
    heads: Heads


class WhisperModel(AutoregressiveModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        checkpoint: in evaluation mode, on its device.
        requested: what to give.
        quantizers: k-means codebooks by name of the request.
        precision: of the matrix products.
        memory_fraction: share of the device's free memory to plan for.
        folder: the checkpoint's, to compare with transformers.
        second: decodes what fails its checks at every other level.
    """

    def __init__(
        self,
        checkpoint: WhisperCheckpoint,
        requested: RequestedOutputs,
        quantizers: Mapping[str, Quantizer],
        precision: str,
        memory_fraction: float = 0.8,
        folder: Path | None = None,
        second: WhisperModel | None = None,
    ) -> None:
        self._folder = folder
        model, tokenizer, tokens, heads = checkpoint
        self._model, self._tokenizer, self._tokens = model, tokenizer, tokens
        self._wants, self._quantizers = requested, quantizers
        text = self._text = requested.text
        self._top = model.config.encoder_layers
        if not requested.has_text:
            without_layers_above(model.model.encoder, max(requested.layers, default=0))
        self._weights = weights_of(model, precision)
        self._asked = TaskOptions(
            tokens=tokens,
            task=text.task,
            language=text.language,
            among=[code.strip() for code in (text.languages or "").split(",") if code.strip()],
            before=whisper_prompt_tokens(tokenizer, text.prompt) if text.prompt else [],
            timestamps=text.timestamps,
            keeps_hidden=text.word_times,
        )
        self._max_new_tokens = text.max_new_tokens
        self._heads = heads if text.word_times else None
        self._capacity = self._planned_rows(memory_fraction)
        # Vectors and codes are those of full windows, as Hugging Face gives them.
        first = DecodingOptions(
            context="short" if has_short_context(text) and not requested.layers else "window",
            stops_repetition=text.fallback,
            decodes_trailing_speech=text.fallback,
            num_beams=text.decoder.beam_size,
            watches_language=text.fallback and text.language is None and len(tokens.languages) > 1,
        )
        self._is_fixed = model.device.type == "cuda"
        self._tables: dict[bool, DecodeSlots] = {}
        super().__init__(first, requested.transcripts, second, recovery=self)

    def _planned_rows(self, memory_fraction: float) -> int:
        device, shapes = self._model.device, shapes_of(self._model)
        encoder_frames = ENCODER_SECONDS[device.type] * MODEL_SAMPLE_RATE // WHISPER_HOP
        budget = memory_fraction * free_bytes(device)
        return rows_that_fit(shapes, budget, WINDOW_SAMPLES // WHISPER_HOP, encoder_frames, MAX_ROWS[device.type])

    @torch.inference_mode()
    def parity(self, segment: Segment) -> Parity:
        """With transformers' own feature extractor and encoder."""
        assert self._folder is not None, "loaded from a folder"
        return whisper_parity(self._folder, self._model, self._weights, segment)

    def spare_memory(self) -> None:
        """Half the rows at a time."""
        self._capacity = max(1, self._capacity // 2)
        self._tables = {}

    def context(self, num_samples: int, options: DecodingOptions) -> int:
        """Whisper was trained on windows of 30 s; it may be shown less."""
        return context_samples(num_samples, options.context, self._model.device.type)

    @torch.inference_mode()
    def forward_with_progress(self, batch: Sequence[Segment], on_progress: OnProgress) -> list[Prediction]:
        """Reports a row when its text is written."""
        readouts: dict[int, Readout] = {}

        def read(rows: list[int], hidden: dict[int, Tensor]) -> None:
            readouts.update(zip(rows, self._read_out([batch[row] for row in rows], hidden), strict=True))

        if self._wants.has_text:
            batch = [segment.core for segment in batch]
        encode_decode = self._encode_decode(batch, self._first, read if self._wants.layers else None, on_progress)
        if not self._wants.has_text:
            while encode_decode.encode_next():
                continue
            return [Prediction(None, readouts[row]) for row in range(len(batch))]
        texts = self._decoded(encode_decode, self._first)
        return [Prediction(text, readouts.get(row, Readout())) for row, text in enumerate(texts)]

    @torch.inference_mode()
    def decode(self, batch: Sequence[Segment], options: DecodingOptions | None = None) -> list[Hypothesis]:
        """Tokens of one batch, by default the most probable ones of full windows."""
        options = options or DecodingOptions()
        return self._decoded(self._encode_decode([segment.core for segment in batch], options, None), options)

    @torch.inference_mode()
    def split_by_language(self, segment: Segment, prediction: Prediction) -> list[Segment]:
        """See `audiomill.models.whisper.language_identification`; only where the forward pass saw signs of a change."""
        if prediction.text is None or not prediction.text.may_mix_languages:
            return [segment]

        def detect(stretches: Sequence[NDArray[np.int16]]) -> list[dict[str, float]]:
            parts = [segment._replace(pcm_T=pcm_T) for pcm_T in stretches]
            return self._encode_decode(parts, DecodingOptions(context="short"), None).detected_languages()

        parts = language_parts(segment.pcm_T, detect)
        if len(parts) == 1:
            return [segment]
        cut = segment.cut_at([0, *(part.stop for part in parts)])
        return [
            each._replace(language=part.language, language_probability=part.probability)
            for each, part in zip(cut, parts, strict=True)
        ]

    def _encode_decode(
        self, batch: Sequence[Segment], options: DecodingOptions, on_encoded: Any, on_progress: OnProgress = no_progress
    ) -> EncodeDecode:
        contexts = [self.context(len(segment.pcm_T), options) for segment in batch]
        hidden_states = self._wants.layers if on_encoded is not None else set()
        return EncodeDecode(
            self._weights, self._asked, batch, contexts, options, hidden_states, on_encoded, on_progress
        )

    def _decoded(self, encode_decode: EncodeDecode, options: DecodingOptions) -> list[Hypothesis]:
        search = Search(
            tokens=self._tokens,
            timestamps=self._asked.timestamps,
            max_new_tokens=self._max_new_tokens,
            stops_repetition=options.stops_repetition,
        )

        def beam_search(entry: DecodeRequest) -> Iterator[tuple[int, DecodedTokens]]:
            result = decode_with_beams(self._weights.decoder, entry.begins, entry.prompts, search, options.num_beams)
            yield from ((name, best.decoded) for name, (best, *_) in zip(entry.names, result, strict=True))

        def slots(most: int) -> DecodeSlots:
            return self._table(search, min(most, encode_decode.num_rows))

        decode_rows(encode_decode, options.num_beams, self._capacity, slots, beam_search)
        return encode_decode.hypotheses(self._heads)

    def _table(self, search: Search, num_rows: int) -> DecodeSlots:
        """Slots for rows; on a GPU always the same ones, so that recorded steps are used again."""
        length = len(self._asked.before) + len(
            self._tokens.prompt(0 if self._tokens.languages else None, "", self._asked.timestamps)
        )
        decoder, kind = self._weights.decoder, search.stops_repetition
        if not self._is_fixed:
            return DecodeSlots(decoder, search, num_rows, length)
        if kind not in self._tables:
            self._tables = {kind: DecodeSlots(decoder, search, self._capacity, length, WINDOW_SAMPLES // WHISPER_HOP)}
        return self._tables[kind]

    def _read_out(self, batch: Sequence[Segment], hidden: dict[int, Tensor]) -> list[Readout]:
        """Frames of the audio only: what the model makes of the padding is dropped."""
        frames = [-(-len(u.pcm_T) // WHISPER_HOP) for u in batch]
        core = CoreFrames(batch, frames, WHISPER_HOP, self._model.device)
        return read_out(self._wants, hidden, None, self._quantizers, lambda layer: core)

    def metrics(self, segments: Sequence[Segment], texts: Sequence[Hypothesis]) -> list[DecodingMetrics]:
        """What the decoder knows about each text."""
        whole = [[token for token in hypothesis.tokens if token < self._tokens.end] for hypothesis in texts]
        pairs = zip(segments, texts, strict=True)
        overruns_s = [last_beginning(hypothesis, self._tokens) - segment.seconds for segment, hypothesis in pairs]
        return metrics_of(segments, texts, self._tokenizer.decode_batch(whole), overruns_s)

    def find_deletions(self, row: int, segment: Segment, hypothesis: Hypothesis) -> list[Part]:
        """The parts of a segment some of whose speech has too few words; they are told by times of words."""
        return deleted_parts(
            row, segment.core, hypothesis, lambda ids: [len(single.encode()) for single in self._singles(ids)]
        )

    def _singles(self, ids: Sequence[int]) -> list[str]:
        return list(self._tokenizer.decode_batch([[each] for each in ids]))

    def fill_deletions(self, hypothesis: Hypothesis, parts: Sequence[tuple[Part, Hypothesis]]) -> Hypothesis:
        """The texts of the parts in place of the segment's, where they say more and every one of them is clear."""
        result = self.metrics([part.segment for part, _ in parts], [text for _, text in parts])
        with_speech = [pair for pair, metrics in zip(parts, result, strict=True) if not is_silence(metrics, self._text)]
        clear = all(
            metrics.avg_logprob >= MIN_LOGPROB and not failed_checks(metrics, self._text)
            for metrics in result
            if not is_silence(metrics, self._text)
        )
        before, after = (
            self._num_words(each.tokens) for each in (hypothesis, join_hypotheses(hypothesis, with_speech))
        )
        return join_hypotheses(hypothesis, with_speech) if clear and after >= before + MIN_MORE_WORDS else hypothesis

    def _num_words(self, tokens: Sequence[int]) -> int:
        return len(units(self._tokenizer.decode([token for token in tokens if token < self._tokens.end])))

    def _words(self, hypothesis: Hypothesis, segment: Segment) -> tuple[TimedText, ...]:
        """Words with their confidence; without times where none were asked for."""
        end, avg_logprob = self._tokens.end, mean_logprob(hypothesis)
        timed: list[TimedToken] = []
        for stretch in hypothesis.chunks:
            pairs = zip(stretch.decoded.tokens, stretch.decoded.logprobs, strict=True)
            untimed = [TimedToken(token, 0, 0, math.exp(logprob)) for token, logprob in pairs if token < end]
            timed += untimed if stretch.timed is None else stretch.timed

        def judge(probability: float) -> float:
            return word_confidence(Evidence(probability, avg_logprob, hypothesis.fallback_level))

        words = words_of(timed, self._tokenizer, hypothesis.language, judge)
        return words if self._heads is None else repair_times(words, segment.core.pcm_T)

    def transcripts(self, segments: Sequence[Segment], texts: Sequence[Hypothesis]) -> list[Transcript]:
        """Texts and phrases, with one detokenise call for all."""
        spans = [
            phrase_tokens(hypothesis, self._tokens, len(u.pcm_T)) for u, hypothesis in zip(segments, texts, strict=True)
        ]
        whole = [[t for t in hypothesis.tokens if t < self._tokens.end] for hypothesis in texts]
        decoded_texts = self._tokenizer.decode_batch(
            [*whole, *(ids for row in spans for ids, _, _ in row)], skip_special_tokens=True
        )
        pieces = iter(decoded_texts[len(whole) :])
        transcripts = []
        for segment, hypothesis, text, row in zip(segments, texts, decoded_texts, spans, strict=False):
            words, no_speech_prob = self._words(hypothesis, segment), hypothesis.chunks[0].decoded.no_speech_prob
            phrases = tuple(TimedText(next(pieces).strip(), start, stop, 1.0) for _, start, stop in row)
            transcripts.append(
                Transcript(
                    text=text.strip(),
                    language=hypothesis.language,
                    language_probability=hypothesis.language_probability,
                    avg_logprob=mean_logprob(hypothesis),
                    no_speech_prob=no_speech_prob,
                    words=words if self._heads is not None else None,
                    phrases=tuple(p for p in phrases if p.text) if self._asked.timestamps else None,
                    fallback_level=hypothesis.fallback_level,
                    failed_checks=hypothesis.failed_checks,
                    confidence=segment_confidence(
                        [word.confidence or 0.0 for word in words],
                        no_speech_prob,
                        has_failed=bool(hypothesis.failed_checks),
                    ),
                )
            )
        return transcripts
