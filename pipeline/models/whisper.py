"""Whisper: log-mel, encoder, greedy decoder, text with phrases; vectors and codes of the encoder's layers.

B batch, T samples, M mels, F frames, D model width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from pipeline.config import TranscriptConfig
from pipeline.models.base import Answer, Ladder, Readout, TimedText, Transcript, Utterance, Wants, side_by_side
from pipeline.models.gates import Signals
from pipeline.models.mel import HOP_SAMPLES, LogMel
from pipeline.models.readout import CoreFrames, Quantizer, read_out
from pipeline.models.shape import WHISPER_HOP
from pipeline.models.taps import LayerTaps, without_layers_above
from pipeline.models.whisper_align import Heads, token_frames
from pipeline.models.whisper_beam import decode_with_beams
from pipeline.models.whisper_decoder import Decoded, Sampler, decode_rows, detect_languages
from pipeline.models.whisper_encoder import encode_short
from pipeline.models.whisper_heard import STAMP_SAMPLES, Heard, How, Stretch, mean_logprob, phrase_tokens, signals_of
from pipeline.models.whisper_tokens import WhisperTokens, prompt_tokens
from pipeline.models.whisper_words import TimedToken, words_of

WINDOW_SAMPLES = 30 * MODEL_SAMPLE_RATE
MIN_REST_S = 1.0
"""With less audio behind the last phrase Whisper invents a greeting."""


CONTEXT_FLOOR_S, CONTEXT_MARGIN_S, CONTEXT_STEP_S = 10.0, 1.0, 10.0
"""Short context: the encoder sees the segment, this margin and at least the floor, in steps of so much."""


class WhisperModel:
    """See `pipeline.models.base.SpeechModel`.

    Args:
        model: `WhisperForConditionalGeneration` in evaluation mode on its device.
        tokenizer: a `tokenizers.Tokenizer`.
        tokens: its special tokens.
        wants: what to give.
        quantizers: k-means codebooks by name of the want.
        heads: of the decoder, that tell when a token was said.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tokens: WhisperTokens,
        wants: Wants,
        quantizers: Mapping[str, Quantizer],
        heads: Heads,
    ) -> None:
        self._model, self._tokenizer, self._tokens = model, tokenizer, tokens
        self._wants, self._quantizers = wants, quantizers
        text = wants.transcripts or TranscriptConfig()
        self._task, self._language = text.task, text.language
        self._before = prompt_tokens(tokenizer, text.prompt) if text.prompt else []
        self._among = [code.strip() for code in (text.languages or "").split(",") if code.strip()]
        self._timestamps, self._max_new_tokens = text.timestamps, text.max_new_tokens
        self._has_word_times, self._heads = text.word_times, heads
        self._mel = LogMel(model.config.num_mel_bins, model.device)
        encoder = model.model.encoder
        self._top = model.config.encoder_layers
        if wants.transcripts is None:
            without_layers_above(encoder, max(wants.layers, default=0))
        self._taps = LayerTaps(encoder.layers, wants.layers - {self._top})
        # Vectors and codes are those of full windows, as Hugging Face gives them.
        self._first = How(is_short=text.retry and not wants.layers, stops_loops=text.retry)
        self.has_buckets = True
        self.ladder: Ladder | None = None

    def padded_length(self, num_samples: int) -> int:
        """Whisper was trained on windows of 30 s; with a short context it is shown less."""
        return self.context(num_samples, self._first)

    def context(self, num_samples: int, how: How) -> int:
        """Samples that the encoder is shown: a function of the segment alone, so that its batch does not matter."""
        if not how.is_short:
            return WINDOW_SAMPLES
        step = samples_from_seconds(CONTEXT_STEP_S)
        wanted = max(samples_from_seconds(CONTEXT_FLOOR_S), num_samples + samples_from_seconds(CONTEXT_MARGIN_S))
        return min(WINDOW_SAMPLES, -(-wanted // step) * step)

    @torch.inference_mode()
    def forward(self, batch: Sequence[Utterance]) -> list[Answer]:
        """Tokens, vectors and codes, whichever are wanted.

        Text is made of the segment without its context, so where text is wanted the context is not looked at.
        """
        if self._wants.transcripts is not None:
            batch = [_core(utterance) for utterance in batch]
        mel_BMF, hidden_BFD = self._encode(batch, self._first)
        readouts = self._read_out(batch, hidden_BFD)
        heard: Sequence[Heard | None] = [None] * len(batch)
        if self._wants.transcripts is not None:
            heard = self._decode(batch, mel_BMF, hidden_BFD, self._first)
        return [Answer(text, readout) for text, readout in zip(heard, readouts, strict=True)]

    @torch.inference_mode()
    def decode(self, batch: Sequence[Utterance], how: How | None = None) -> list[Heard]:
        """Tokens of one batch, by default the most probable ones of full windows; all rows need the same context."""
        batch, how = [_core(utterance) for utterance in batch], how or How()
        return self._decode(batch, *self._encode(batch, how), how)

    def _encode(self, batch: Sequence[Utterance], how: How) -> tuple[Tensor, Tensor]:
        (num_samples,) = {self.context(len(utterance.pcm_T), how) for utterance in batch}
        mel_BMF = self._mel(_padded(batch, num_samples, self._model.device)).to(self._model.dtype)
        return mel_BMF, encode_short(self._model.model.encoder, mel_BMF)

    def _read_out(self, batch: Sequence[Utterance], hidden_BFD: Tensor) -> list[Readout]:
        """Frames of the audio only: what the model makes of the padding is dropped."""
        if not self._wants.layers:
            return [Readout()] * len(batch)
        frames = [-(-len(u.pcm_T) // WHISPER_HOP) for u in batch]
        core = CoreFrames(batch, frames, WHISPER_HOP, self._model.device)
        return read_out(self._wants, {**self._taps.taken(), self._top: hidden_BFD}, None, self._quantizers, core)

    def _decode(self, batch: Sequence[Utterance], mel_BMF: Tensor, hidden_BFD: Tensor, how: How) -> list[Heard]:
        """Tokens of one batch; the language is detected where it is not given.

        With timestamps the decoder may end before the audio does. What follows its last closed phrase is then
        decoded as a window of its own, as `generate` of Hugging Face and openai/whisper transcribe.py do.
        """
        languages = self._languages(batch, hidden_BFD)
        prompts = [[*self._before, *self._tokens.prompt(token, self._task, self._timestamps)] for token, _ in languages]
        stretches: list[list[Stretch]] = [[] for _ in batch]
        rows, starts = list(range(len(batch))), [0] * len(batch)
        while rows:
            seeds = [_seed(batch[row], start, how) for row, start in zip(rows, starts, strict=True)]
            found = self._chosen(hidden_BFD, [prompts[row] for row in rows], how, seeds)
            rest: list[tuple[int, int]] = []
            for row, start, decoded in zip(rows, starts, found, strict=True):
                kept, rest_from = self._until_rest(decoded, len(batch[row].pcm_T) - start)
                stretches[row].append(Stretch(start, kept))
                if rest_from is not None:
                    rest.append((row, start + rest_from))
            if self._has_word_times:
                self._time_tokens(batch, rows, stretches, hidden_BFD, languages)
            rows, starts = [row for row, _ in rest], [start for _, start in rest]
            if rows:
                hidden_BFD = encode_short(self._model.model.encoder, _rest_of(mel_BMF, rest))
                self._taps.taken()
        return [
            Heard(tuple(row), *self._named(*language), rung=how.rung)
            for row, language in zip(stretches, languages, strict=True)
        ]

    def _time_tokens(
        self,
        batch: Sequence[Utterance],
        rows: Sequence[int],
        stretches: list[list[Stretch]],
        hidden_BFD: Tensor,
        languages: Sequence[tuple[int | None, float | None]],
    ) -> None:
        """Puts times into the latest stretch of each row that has text."""
        texts = [[t for t in stretches[row][-1].decoded.tokens if t < self._tokens.end] for row in rows]
        spoken = [n for n, text in enumerate(texts) if text]
        if not spoken:
            return
        lengths = [len(batch[rows[n]].pcm_T) - stretches[rows[n]][-1].start for n in spoken]
        found = token_frames(
            self._model,
            hidden_BFD[spoken],
            [self._tokens.prompt(languages[rows[n]][0], self._task, False) for n in spoken],
            [texts[n] for n in spoken],
            [max(1, -(-length // WHISPER_HOP)) for length in lengths],
            self._tokens.end,
            self._heads,
        )
        for n, (frames, probabilities) in zip(spoken, found, strict=True):
            stretch = stretches[rows[n]][-1]
            edges = (stretch.start + WHISPER_HOP * frames).tolist()
            timed = map(TimedToken, texts[n], edges[:-1], edges[1:], probabilities.tolist())
            stretches[rows[n]][-1] = stretch._replace(timed=tuple(timed))

    def _chosen(self, hidden_BFD: Tensor, prompts: list[list[int]], how: How, seeds: list[int]) -> list[Decoded]:
        given = (self._model, hidden_BFD, prompts, self._tokens)
        common: dict[str, Any] = {"timestamps": self._timestamps, "max_new_tokens": self._max_new_tokens}
        if how.num_beams > 1:
            return decode_with_beams(*given, num_beams=how.num_beams, **common)
        sampler = Sampler(how.temperature, seeds) if how.temperature else None
        return decode_rows(*given, sampler=sampler, stops_loops=how.stops_loops, **common)

    def _until_rest(self, decoded: Decoded, num_samples: int) -> tuple[Decoded, int | None]:
        """The tokens up to the last pair of timestamps, and the sample from which the rest is to be decoded.

        None if all was heard: a single stamp ends the window, there are no pairs, or less than `MIN_REST_S` is left.
        """
        ids, first = decoded.tokens, self._tokens.first_timestamp
        pairs = [i for i in range(1, len(ids)) if ids[i] >= first and ids[i - 1] >= first]
        ends_single = len(ids) >= 2 and ids[-1] >= first > ids[-2]
        if not self._timestamps or not pairs or ends_single:
            return decoded, None
        rest_from = (ids[pairs[-1]] - first) * STAMP_SAMPLES
        if rest_from == 0 or num_samples - rest_from < MIN_REST_S * MODEL_SAMPLE_RATE:
            return decoded, None
        return decoded._replace(tokens=ids[: pairs[-1] + 1]), rest_from

    def _languages(self, batch: Sequence[Utterance], hidden_BFD: Tensor) -> list[tuple[int | None, float | None]]:
        if not self._tokens.languages:
            return [(None, None)] * len(batch)
        given = [self._tokens.languages.get(self._language or u.language or "") for u in batch]
        unknown = [row for row, token in enumerate(given) if token is None]
        found: list[tuple[int | None, float | None]] = [(token, None) for token in given]
        if unknown:
            detected = detect_languages(self._model, hidden_BFD[unknown], self._tokens, self._among)
            for row, (token, probability) in zip(unknown, detected, strict=True):
                found[row] = (token, probability)
        return found

    def _named(self, token: int | None, probability: float | None) -> tuple[str | None, float | None]:
        return ("en", None) if token is None else (self._tokens.language_of(token), probability)

    def signals(self, utterances: Sequence[Utterance], texts: Sequence[Heard]) -> list[Signals]:
        """What the decoder knows about each text."""
        return signals_of(utterances, texts, self._tokens, self._tokenizer)

    def _words(self, heard: Heard) -> tuple[TimedText, ...]:
        timed = [token for stretch in heard.stretches for token in stretch.timed or ()]
        return words_of(timed, self._tokenizer, heard.language)

    def transcripts(self, utterances: Sequence[Utterance], texts: Sequence[Heard]) -> list[Transcript]:
        """Texts and phrases, with one detokenise call for all."""
        spans = [phrase_tokens(heard, self._tokens, len(u.pcm_T)) for u, heard in zip(utterances, texts, strict=True)]
        whole = [[t for t in heard.tokens if t < self._tokens.end] for heard in texts]
        decoded_texts = self._tokenizer.decode_batch(
            [*whole, *(ids for row in spans for ids, _, _ in row)], skip_special_tokens=True
        )
        pieces = iter(decoded_texts[len(whole) :])
        transcripts = []
        for heard, text, row in zip(texts, decoded_texts, spans, strict=False):
            phrases = tuple(TimedText(next(pieces).strip(), start, stop, 1.0) for _, start, stop in row)
            transcripts.append(
                Transcript(
                    text=text.strip(),
                    language=heard.language,
                    language_probability=heard.language_probability,
                    avg_logprob=mean_logprob(heard),
                    no_speech_prob=heard.stretches[0].decoded.no_speech_prob,
                    words=self._words(heard) if self._has_word_times else None,
                    phrases=tuple(p for p in phrases if p.text) if self._timestamps else None,
                    rung=heard.rung,
                    gates=heard.gates,
                )
            )
        return transcripts


def _core(utterance: Utterance) -> Utterance:
    """Without its context."""
    stop = len(utterance.pcm_T) - utterance.right
    return utterance._replace(pcm_T=utterance.pcm_T[utterance.left : stop], left=0, right=0)


def _seed(utterance: Utterance, start: int, how: How) -> int:
    """Random numbers of a segment's own."""
    name = f"{utterance.track}-{utterance.start + start}-{how.rung}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "little")


def _padded(batch: Sequence[Utterance], num_samples: int, device: torch.device) -> Tensor:
    """Int16 goes to the device; it becomes float there. Zeros up to `num_samples`."""
    assert all(len(utterance.pcm_T) <= num_samples for utterance in batch), "segments fit the window"
    return torch.from_numpy(side_by_side(batch, num_samples)).to(device).float() / 32768.0


def _rest_of(mel_BMF: Tensor, rest: list[tuple[int, int]]) -> Tensor:
    """Spectrograms of what is left of some rows, moved to the front; zeros behind, as Whisper pads them."""
    moved = mel_BMF.new_zeros(len(rest), *mel_BMF.shape[1:])
    for index, (row, start) in enumerate(rest):
        frames = mel_BMF.shape[-1] - start // HOP_SAMPLES
        moved[index, :, :frames] = mel_BMF[row, :, -frames:]
    return moved
