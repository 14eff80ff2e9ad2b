"""Encoder-decoders that read a segment whole and write it in one go: text through the engine of `table`, with gates and ladder.

B batch, F frames, D width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiomill.models.base import Answer, Readout, Transcript, Utterance, Wants
from audiomill.models.finite import not_finite
from audiomill.models.frames.encoding import EncodingModel
from audiomill.models.frames.frame_network import FrameNetwork
from audiomill.models.pulse import beat
from audiomill.models.seq2seq.beams import decode_with_beams
from audiomill.models.seq2seq.cross import crossed
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.gates import Signals
from audiomill.models.seq2seq.heard import Heard, How, Stretch, mean_logprob, seed_of, signals_of
from audiomill.models.seq2seq.ladder import GateLadder
from audiomill.models.seq2seq.memory import Shapes, free_bytes, rows_that_fit
from audiomill.models.seq2seq.special_tokens import SpecialTokens
from audiomill.models.seq2seq.stepping import decode
from audiomill.models.seq2seq.table import Decoded, Entry, Search, Table
from audiomill.models.vectors.readout import Quantizer

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
        prompt: by that language -> tokens that the decoder is started with, equally many for all.
    """

    weights: DecoderWeights
    tokens: SpecialTokens
    decoded: Callable[[list[list[int]]], list[str]]
    language: Callable[[Utterance], str | None]
    prompt: Callable[[str | None], list[int]]


class EncoderDecoder(EncodingModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        network: its body is the encoder; changed in place.
        writer: None where no text is wanted.
        wants: what to give.
        quantizers: by name of the want.
        memory_fraction: share of the device's free memory to plan for.
        encoded_at_once_s: audio that the encoder is given at once, where its rows do not see each other's padding; 0: row
            by row.
    """

    tells_rows = pads_rows_alone = True

    def __init__(
        self,
        network: FrameNetwork,
        writer: Writer | None,
        wants: Wants,
        quantizers: Mapping[str, Quantizer],
        memory_fraction: float,
        encoded_at_once_s: float = 0.0,
    ) -> None:
        super().__init__(network, wants, quantizers, writer is not None)
        self._writer, self._memory_fraction, self._encoded_at_once_s = writer, memory_fraction, encoded_at_once_s
        self._first, self._halved = How(), 1
        if wants.transcripts is not None and wants.transcripts.retry:
            self._first = How(stops_loops=True)
            self.ladder = GateLadder(self, wants.transcripts)

    def spare_memory(self) -> None:
        """Half the rows at a time."""
        self._halved *= 2

    def context(self, num_samples: int, how: How) -> int:
        """The encoder is shown the segment, however it is decoded."""
        return num_samples

    @torch.inference_mode()
    def forward(self, batch: Sequence[Utterance]) -> list[Answer]:
        """Tokens, vectors and codes, whichever are wanted. Where text is wanted a segment's context is not looked at."""
        if self._wants.transcripts is None:
            return [Answer(None, readout) for _, readout in self._rows(batch)]
        cores = [_core(utterance) for utterance in batch]
        rows, readouts = [], []
        for hidden_FD, readout in self._rows(cores):
            rows.append(hidden_FD)
            readouts.append(readout)
        texts = self._written(cores, rows, self._first)
        return [Answer(text, readout) for text, readout in zip(texts, readouts, strict=True)]

    @torch.inference_mode()
    def decode(self, batch: Sequence[Utterance], how: How) -> list[Heard]:
        """Tokens of one batch."""
        cores = [_core(utterance) for utterance in batch]
        return self._written(cores, [hidden_FD for hidden_FD, _ in self._rows(cores)], how)

    def _rows(self, batch: Sequence[Utterance]) -> list[tuple[Tensor, Readout]]:
        """hidden_FD of each row, and what is wanted of its hidden states."""
        found: list[tuple[Tensor, Readout]] = []
        while len(found) < len(batch):
            beat()
            some = self._next(batch[len(found) :])
            hidden_BFD = self._encoded(some)
            counts = self._feed.frames_B().tolist()
            readouts = self._read_out(some, hidden_BFD.device)
            found += [(row[:count], out) for row, count, out in zip(hidden_BFD, counts, readouts, strict=True)]
            if self._writer is None and self.on_heard is not None:
                self.on_heard(len(some), sum(len(utterance.pcm_T) for utterance in some))
        return found

    def _next(self, waiting: Sequence[Utterance]) -> Sequence[Utterance]:
        """Utterances that are encoded together: on a CPU each alone, as a row's numbers then cannot depend on others."""
        if self._network.model.device.type == "cpu":
            return waiting[:1]
        most, count = self._encoded_at_once_s * 16_000, 1
        while count < len(waiting) and (count + 1) * max(len(u.pcm_T) for u in waiting[: count + 1]) <= most:
            count += 1
        return waiting[:count]

    def _written(self, batch: Sequence[Utterance], rows: Sequence[Tensor], how: How) -> list[Heard]:
        writer, wanted = self._writer, self._wants.transcripts
        assert writer is not None and wanted is not None, "text is wanted"
        languages = [writer.language(utterance) for utterance in batch]
        prompts = [writer.prompt(language) for language in languages]
        search = Search(
            tokens=writer.tokens,
            timestamps=False,
            max_new_tokens=wanted.max_new_tokens,
            temperature=how.temperature,
            stops_loops=how.stops_loops,
        )
        found: dict[int, Decoded] = {}
        waiting = deque(sorted(range(len(batch)), key=lambda row: -len(rows[row])))

        def next_entry(most: int, _frames: int | None) -> Entry | None:
            """Rows of equally many frames, which are looked at together."""
            names: list[int] = []
            while waiting and len(names) < most and len(rows[waiting[0]]) == len(rows[(names or waiting)[0]]):
                names.append(waiting.popleft())
            if not names:
                return None
            seeds = [seed_of(batch[name], 0, how.rung) for name in names]
            looked_at = crossed(writer.weights, torch.stack([rows[name] for name in names]))
            return Entry(looked_at, [prompts[name] for name in names], names, seeds)

        def done(name: int, decoded: Decoded) -> None:
            if math.isnan(decoded.sum_logprob):
                raise not_finite("the decoder's logits")
            found[name] = decoded
            if self.on_heard is not None:
                self.on_heard(1, len(batch[name].pcm_T))

        most = self._most_rows(max(map(len, rows)))
        if how.num_beams == 1:
            decode(Table(writer.weights, search, min(most, len(batch)), len(prompts[0])), next_entry, done)
        while (entry := next_entry(max(1, most // how.num_beams), None)) is not None:
            better = decode_with_beams(writer.weights, entry.looked_at, entry.prompts, search, how.num_beams)
            for name, decoded in zip(entry.names, better, strict=True):
                done(name, decoded)
        return [
            Heard((Stretch(0, found[row]),), language, None, rung=how.rung) for row, language in enumerate(languages)
        ]

    def _most_rows(self, frames: int) -> int:
        assert self._writer is not None, "text is wanted"
        weights, tokens = self._writer.weights, self._writer.tokens
        shapes = Shapes(
            width=weights.width,
            decoder_layers=len(weights.layers),
            vocabulary=tokens.size,
            value_bytes=weights.dtype.itemsize,
        )
        budget = self._memory_fraction * free_bytes(weights.device)
        return max(1, rows_that_fit(shapes, budget, frames, frames, MAX_ROWS[weights.device.type]) // self._halved)

    def _texts(self, found: Sequence[Heard]) -> list[str]:
        assert self._writer is not None, "text is wanted"
        return self._writer.decoded([heard.tokens for heard in found])

    def signals(self, utterances: Sequence[Utterance], texts: Sequence[Heard]) -> list[Signals]:
        """What the decoder knows about each text."""
        return signals_of(utterances, texts, self._texts(texts), [0.0] * len(texts))

    def transcripts(self, utterances: Sequence[Utterance], texts: Sequence[Heard]) -> list[Transcript]:
        """Texts; words have no times, because nothing says how well this decoder's attention tells them."""
        return [
            Transcript(
                text=" ".join(text.split()),
                language=heard.language,
                language_probability=None,
                avg_logprob=mean_logprob(heard),
                no_speech_prob=None,
                words=None,
                phrases=None,
                rung=heard.rung,
                gates=heard.gates,
                confidence=math.exp(mean_logprob(heard)),
            )
            for heard, text in zip(texts, self._texts(texts), strict=True)
        ]


def _core(utterance: Utterance) -> Any:
    """Without its context."""
    stop = len(utterance.pcm_T) - utterance.right
    return utterance._replace(pcm_T=utterance.pcm_T[utterance.left : stop], left=0, right=0)
