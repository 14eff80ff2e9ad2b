"""One call of Whisper's decoder over many segments: which rows wait, how they are encoded, what comes of them.

B batch, M mels, F frames, D model width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import OnProgress, no_progress, stack_rows
from audiomill.models.finite import not_finite
from audiomill.models.frames.mel import HOP_SAMPLES, LogMel
from audiomill.models.seq2seq.cross_attention_cache import CrossKV, cross_kv
from audiomill.models.seq2seq.decode_slots import DecodedTokens, DecodeRequest
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.hypothesis import DecodedChunk, DecodingOptions, Hypothesis, TimedToken
from audiomill.models.seq2seq.word_time_repair import drop_repeated_chunks
from audiomill.models.watchdog import heartbeat
from audiomill.models.whisper.folder import WHISPER_HOP
from audiomill.models.whisper.language_identification import DetectedLanguage, identify_languages
from audiomill.models.whisper.network.encoder import run_encoder
from audiomill.models.whisper.network.weights import EncoderWeights, encoder_weights, whisper_decoder
from audiomill.models.whisper.timing import Heads, token_costs, token_frames
from audiomill.models.whisper.tokens import WhisperTokens
from audiomill.models.whisper.trailing_speech import without_rest

SAID_A_SECOND, SAID_AT_ONCE = 4.0, 8
"""Tokens. So long a text may repeat itself in a longer context, which is the remedy for loops of a short context."""
ENCODER_SECONDS = {"cpu": 60, "cuda": 960}  # encoded at once: its products are large early
ALIGNED_AT_ONCE, WARPED_AT_ONCE = 16, 64
"""Rows that the decoder reads again together for word times, and rows whose paths are computed together."""


class WhisperWeights(NamedTuple):
    """Everything that computes. `mel`: waveforms to log-mel."""

    mel: LogMel
    encoder: EncoderWeights
    decoder: DecoderWeights


def weights_of(model: Any, precision: str) -> WhisperWeights:
    """Of a `WhisperForConditionalGeneration`."""
    return WhisperWeights(
        LogMel(model.config.num_mel_bins, model.device),
        encoder_weights(model.model.encoder, precision),
        whisper_decoder(model, precision),
    )


class TaskOptions(NamedTuple):
    """What is asked of every row. `before`: tokens that are said to come before; `among`: languages that are looked for;
    `keeps_hidden`: whether the encoder's output is needed later."""

    tokens: WhisperTokens
    task: str
    language: str | None
    among: Sequence[str]
    before: Sequence[int]
    timestamps: bool
    keeps_hidden: bool


class _Encoded(NamedTuple):
    """Rows of one encoder batch."""

    names: list[int]
    hidden_BFD: Tensor
    looked_at: CrossKV


class EncodeDecode:
    """Rows of one call. With timestamps the decoder may end before the audio does; what follows its last closed phrase
    is then decoded as a window of its own, as `generate` of Hugging Face and openai/whisper transcribe.py do.

    Args:
        weights: of the model.
        task_options: of every row.
        segments: without context.
        contexts: samples that the encoder is shown of each.
        options: to decode.
        kept: hidden states that `on_encoded` wants beside the last.
        on_encoded: takes segment numbers and their hidden states, when they are encoded for the first time.
        on_progress: takes a segment when its text is decoded.
    """

    def __init__(
        self,
        weights: WhisperWeights,
        task_options: TaskOptions,
        segments: Sequence[Segment],
        contexts: Sequence[int],
        options: DecodingOptions,
        hidden_states: Collection[int] = (),
        on_encoded: Callable[[list[int], dict[int, Tensor]], None] | None = None,
        on_progress: OnProgress = no_progress,
    ) -> None:
        self._weights, self._task_options, self._options = weights, task_options, options
        self._segments, self._contexts = segments, contexts
        self._kept, self._on_encoded = hidden_states, on_encoded
        order = sorted(range(len(segments)), key=lambda row: -contexts[row])
        self._passes: list[tuple[int, int]] = []  # segment and first sample
        self._waiting: deque[int] = deque()
        for row in order:
            self._wait(row, 0)
        self._languages: dict[int, DetectedLanguage] = {}
        self._found: dict[int, DecodedTokens] = {}
        self._ahead: _Encoded | None = None
        device = weights.decoder.device
        self._side: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._hidden: dict[int, Tensor] = {}
        self._on_progress = on_progress

    def _wait(self, row: int, start: int) -> None:
        self._waiting.append(len(self._passes))
        self._passes.append((row, start))

    @property
    def num_rows(self) -> int:
        return len(self._segments)

    def row_of(self, name: int) -> int:
        """The segment that a pass is of."""
        return self._passes[name][0]

    def next_entry(self, most: int, frames: int | None = None) -> DecodeRequest | None:
        """The next rows of one context, encoded; see `whisper_decoder.decode`."""
        if self._ahead is None:
            self._ahead = self._encoded(most)
        ahead = self._ahead
        if ahead is None or len(ahead.names) > most or frames not in (None, ahead.hidden_BFD.shape[1]):
            return None
        names, hidden_BFD, looked_at = ahead
        self._ahead = None
        if self._side is not None:
            torch.cuda.current_stream().wait_stream(self._side)
            for each in (hidden_BFD, *looked_at.keys, *looked_at.values):
                each.record_stream(torch.cuda.current_stream())
            self._ahead = self._encoded(most)
        rows = [self._passes[name][0] for name in names]
        self._find_languages(rows, looked_at)
        if self._task_options.keeps_hidden:
            self._hidden |= dict(zip(names, hidden_BFD, strict=True))
        prompts = [[*self._task_options.before, *self._prompt(row, self._task_options.timestamps)] for row in rows]
        is_short = self._options.context == "short"
        max_tokens = None if is_short else [self._max_tokens(*self._passes[name]) for name in names]
        return DecodeRequest(looked_at, prompts, names, max_tokens=max_tokens)

    def _max_tokens(self, row: int, start: int) -> int:
        """Tokens that somebody may say behind a sample."""
        return int(SAID_A_SECOND * (len(self._segments[row].pcm_T) - start) / MODEL_SAMPLE_RATE) + SAID_AT_ONCE

    def _encoded(self, most: int) -> _Encoded | None:
        """The next rows, encoded: on a GPU beside what its main stream does."""
        if not self._waiting:
            return None
        names = self._next_names(most)
        if self._side is None:
            hidden_BFD = self._encode(names)
            return _Encoded(names, hidden_BFD, cross_kv(self._weights.decoder, hidden_BFD))
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            hidden_BFD = self._encode(names)
            return _Encoded(names, hidden_BFD, cross_kv(self._weights.decoder, hidden_BFD))

    def encode_next(self) -> bool:
        """Encodes the next rows, for their hidden states only; whether there were any."""
        if is_left := bool(self._waiting):
            self._encode(self._next_names(len(self._waiting)))
        return is_left

    def _next_names(self, most: int) -> list[int]:
        """Passes of one context, all at the start of their segment or all behind it."""

        def kind(name: int) -> tuple[int, bool]:
            return self._contexts[self._passes[name][0]], self._passes[name][1] == 0

        first = kind(self._waiting[0])
        at_once = ENCODER_SECONDS[self._weights.decoder.device.type] * MODEL_SAMPLE_RATE // first[0]
        names: list[int] = []
        while self._waiting and len(names) < min(most, max(1, at_once)) and kind(self._waiting[0]) == first:
            names.append(self._waiting.popleft())
        return names

    def _encode(self, names: Sequence[int]) -> Tensor:
        """On CPU the rows go one by one: the products are large enough, activations stay in the caches, and a row's
        numbers cannot depend on its neighbours."""
        size = 1 if self._weights.decoder.device.type == "cpu" else len(names)
        return torch.cat([self._encode_together(names[at : at + size]) for at in range(0, len(names), size)])

    def _encode_together(self, names: Sequence[int]) -> Tensor:
        heartbeat()
        passes = [self._passes[name] for name in names]
        context, device = self._contexts[passes[0][0]], self._weights.decoder.device
        pcm_BT = torch.from_numpy(stack_rows([self._segments[row] for row, _ in passes], context))
        if device.type == "cuda":
            pcm_BT = pcm_BT.pin_memory().to(device, non_blocking=True)
        mel_BMF = self._weights.mel(pcm_BT.float() / 32768.0).to(self._weights.encoder.dtype)
        is_first = passes[0][1] == 0
        if not is_first:
            mel_BMF = _moved(mel_BMF, [start // HOP_SAMPLES for _, start in passes])
        hidden = run_encoder(self._weights.encoder, mel_BMF, self._kept if is_first else ())
        if is_first and self._on_encoded is not None:
            self._on_encoded([row for row, _ in passes], hidden)
        return hidden[len(self._weights.encoder.layers)]

    def _find_languages(self, rows: Sequence[int], looked_at: CrossKV) -> None:
        tokens, task_options = self._task_options.tokens, self._task_options
        unknown = []
        for at, row in enumerate(rows):
            code = tokens.code(task_options.language or self._segments[row].language)
            if not tokens.languages or code is not None:
                self._languages[row] = DetectedLanguage(tokens.languages.get(code or ""), None)
            elif row not in self._languages:
                unknown.append(at)
        if unknown:
            segments = [self._segments[rows[at]] for at in unknown] if self._options.watches_language else None
            results = identify_languages(
                self._weights.decoder, looked_at.take(unknown), tokens, task_options.among, segments
            )
            self._languages |= {rows[at]: result for at, result in zip(unknown, results, strict=True)}

    def detected_languages(self) -> list[dict[str, float]]:
        """Probabilities of languages of all rows, which are not decoded."""
        while self.next_entry(self.num_rows) is not None:
            continue
        return [self._languages[row].probabilities or {} for row in range(self.num_rows)]

    def _prompt(self, row: int, timestamps: bool) -> list[int]:
        return self._task_options.tokens.prompt(self._languages[row].token, self._task_options.task, timestamps)

    def done(self, name: int, decoded: DecodedTokens) -> None:
        """Takes one result; what the decoder left out waits for its own turn.

        Raises:
            RunError: the decoder computed no numbers.
        """
        if math.isnan(decoded.sum_logprob):
            raise not_finite("the decoder's logits")
        row, start = self._passes[name]
        self._found[name], rest_from = decoded, None
        if self._task_options.timestamps:
            first_timestamp, looks_behind = (
                self._task_options.tokens.first_timestamp,
                self._options.decodes_trailing_speech,
            )
            self._found[name], rest_from = without_rest(
                decoded, self._segments[row], start, first_timestamp, looks_behind
            )
        if rest_from is not None:
            self._wait(row, start + rest_from)
        if start == 0:  # a rest was counted with what came before it
            self._on_progress(1, len(self._segments[row].pcm_T))

    def hypotheses(self, heads: Heads | None) -> list[Hypothesis]:
        """Everything that was found, in the order of the segments; with word times where there are alignment heads."""
        timed = self._timed(heads) if heads is not None else {}
        chunks: dict[int, list[DecodedChunk]] = {row: [] for row in range(len(self._segments))}
        for name, (row, start) in enumerate(self._passes):
            chunks[row].append(DecodedChunk(start, self._found[name], timed.get(name)))
        end = self._task_options.tokens.end
        return [self._hypothesis(row, drop_repeated_chunks(chunks[row], end)) for row in range(len(self._segments))]

    def _hypothesis(self, row: int, chunks: tuple[DecodedChunk, ...]) -> Hypothesis:
        token, languages, may_change = self._languages[row]
        language = "en" if token is None else self._task_options.tokens.language_of(token)
        sure = self._segments[row].language_probability if languages is None else languages[language]
        return Hypothesis(
            chunks,
            language,
            sure,
            fallback_level=self._options.fallback_level,
            languages=languages,
            may_mix_languages=may_change,
        )

    def _timed(self, heads: Heads) -> dict[int, tuple[TimedToken, ...]]:
        """Tokens with times of every pass that has text."""
        end = self._task_options.tokens.end
        texts = {
            name: [(t, p) for t, p in zip(decoded.tokens, decoded.logprobs, strict=True) if t < end]
            for name, decoded in self._found.items()
        }
        spoken = [name for name, text in texts.items() if text]
        spoken.sort(key=lambda name: (len(self._hidden[name]), len(texts[name])))
        order, costs = list(spoken), list[Tensor]()
        while spoken:
            frames = len(self._hidden[spoken[0]])
            names = [name for name in spoken[:ALIGNED_AT_ONCE] if len(self._hidden[name]) == frames]
            spoken = spoken[len(names) :]
            heartbeat()
            costs += token_costs(
                self._weights.decoder,
                torch.stack([self._hidden.pop(name) for name in names]),
                [self._prompt(self._passes[name][0], False) for name in names],
                [[token for token, _ in texts[name]] for name in names],
                [self._num_frames(name) for name in names],
                end,
                heads,
            )
        edges: list[NDArray[np.int64]] = []
        for at in range(0, len(costs), WARPED_AT_ONCE):
            edges += token_frames(costs[at : at + WARPED_AT_ONCE])
        results: dict[int, tuple[TimedToken, ...]] = {}
        for name, edges_N in zip(order, edges, strict=True):
            stamps = (self._passes[name][1] + WHISPER_HOP * edges_N).tolist()
            results[name] = tuple(
                TimedToken(token, start, stop, math.exp(logprob))
                for (token, logprob), start, stop in zip(texts[name], stamps[:-1], stamps[1:], strict=True)
            )
        return results

    def _num_frames(self, name: int) -> int:
        row, start = self._passes[name]
        return max(1, -(-(len(self._segments[row].pcm_T) - start) // WHISPER_HOP))


def _moved(mel_BMF: Tensor, frames: Sequence[int]) -> Tensor:
    """Spectrograms without their first frames, moved to the front; zeros behind, as Whisper pads them."""
    moved = torch.zeros_like(mel_BMF)
    for row, left_out in enumerate(frames):
        moved[row, :, : mel_BMF.shape[-1] - left_out] = mel_BMF[row, :, left_out:]
    return moved
