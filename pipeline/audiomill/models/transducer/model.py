"""Transducers: text from a label loop over an encoder's frames, vectors and codes from its hidden states.

B batch, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Prediction, RequestedOutputs, TimedText, Transcript
from audiomill.models.ctc.greedy_decoding import CtcVocabulary, core_frames, without_special
from audiomill.models.ctc.vocabulary import ctc_tokenizer, ctc_vocabulary
from audiomill.models.family import Loading
from audiomill.models.fastconformer.fast_conformer import encoder
from audiomill.models.fastconformer.frame_clock import fastconformer_shape
from audiomill.models.frames.encoders import encoder_network
from audiomill.models.frames.encoding import EncodingModel
from audiomill.models.frames.frame_network import FrameNetwork
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.transducer.label_loop import LabelLoop, Labels
from audiomill.models.vectors.readout import Quantizer


class _Piece(NamedTuple):
    """A token on the segment's clock, in samples."""

    name: str
    start: int
    stop: int
    logprob: float


class TransducerModel(EncodingModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        network: its model is a transducer of transformers; changed in place.
        vocabulary: tokens; None where no text is wanted.
        requested: what to give.
        quantizers: by name of the want.
        language: reported in the rows.
        one_by_one: rows are encoded alone, because rounding to 8 bits makes more of the last bits of a batch's sums.
    """

    def __init__(
        self,
        network: FrameNetwork,
        vocabulary: CtcVocabulary | None,
        requested: RequestedOutputs,
        quantizers: Mapping[str, Quantizer],
        *,
        language: str | None,
        one_by_one: bool = False,
    ) -> None:
        super().__init__(network, requested, quantizers, vocabulary is not None)
        self._vocabulary, self._language = vocabulary, language
        self._one_by_one = self.pads_rows_alone = one_by_one
        self._loop = LabelLoop(network.model)

    @torch.inference_mode()
    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Labels, vectors and codes, whichever are wanted."""
        if self._one_by_one and len(batch) > 1:
            return [answer for segment in batch for answer in self.forward([segment])]
        hidden_BFD = self._encoded(batch)
        texts: Sequence[Labels | None] = [None] * len(batch)
        if self._vocabulary is not None:
            texts = self._loop(self._network.model.encoder_projector(hidden_BFD), self._feed.text_frames_B())
        readouts = self._read_out(batch, hidden_BFD.device)
        return [Prediction(text, readout) for text, readout in zip(texts, readouts, strict=True)]

    def transcripts(self, segments: Sequence[Segment], texts: Sequence[Labels]) -> list[Transcript]:
        """Words with times; what was said in the context of a segment is not its own."""
        vocabulary, wanted = self._vocabulary, self._wants.transcripts
        assert vocabulary is not None, "text is wanted"
        results = [self._transcript(each, text, vocabulary) for each, text in zip(segments, texts, strict=True)]
        if wanted is None or not wanted.drop_special_tokens:
            return results
        return [without_special(result, vocabulary.special) for result in results]

    def _transcript(self, segment: Segment, text: Labels, vocabulary: CtcVocabulary) -> Transcript:
        num_frames = 1 + int(max(text.frames_N, default=0))
        _, is_core_F = core_frames(segment, num_frames, self._feed.text_hop)
        core_numbers = [n for n, frame in enumerate(text.frames_N.tolist()) if is_core_F[frame]]
        words = tuple(_words(list(self._pieces(segment, text, core_numbers, vocabulary)), vocabulary))
        written, logprobs = " ".join(word.text for word in words), text.logprobs_N[core_numbers]
        doubt = text.path_logprob / max(1, len("".join(vocabulary.tokens[t] for t in text.tokens_N.tolist())))
        return Transcript(
            text=written,
            language=self._language,
            language_probability=None,
            avg_logprob=float(logprobs.mean()) if len(core_numbers) else None,
            no_speech_prob=None,
            words=words,
            phrases=None,
            confidence=float(np.exp(doubt)),
        )

    def _pieces(
        self, segment: Segment, text: Labels, core_numbers: Sequence[int], vocabulary: CtcVocabulary
    ) -> Iterator[_Piece]:
        hop = self._feed.text_hop
        for n in core_numbers:
            start = int(text.frames_N[n]) * hop - segment.left
            name, lasting = vocabulary.tokens[int(text.tokens_N[n])], int(text.lasting_N[n])
            yield _Piece(name, max(0, start), max(0, start + lasting * hop), float(text.logprobs_N[n]))


def _words(pieces: Sequence[_Piece], vocabulary: CtcVocabulary) -> Iterator[TimedText]:
    """A word begins with a piece that has the mark. Punctuation has no time of its own (as in NeMo)."""
    word: list[_Piece] = []
    for piece in pieces:
        if vocabulary.begins_word(piece.name) and word:
            yield from _word(word, vocabulary)
            word = []
        word.append(piece)
    yield from _word(word, vocabulary)


def _word(pieces: Sequence[_Piece], vocabulary: CtcVocabulary) -> Iterator[TimedText]:
    text = vocabulary.written("".join(piece.name for piece in pieces))
    if not text:
        return
    letters = [piece for piece in pieces if any(c.isalnum() for c in vocabulary.written(piece.name))] or list(pieces)
    probability = float(np.exp(np.mean([piece.logprob for piece in pieces])))
    stop = max(letters[0].start + 1, *(piece.stop for piece in letters))
    yield TimedText(text, letters[0].start, stop, probability)


def load_transducer(loading: Loading) -> TransducerModel:
    """A checkpoint from a local folder.

    Raises:
        ModelError: weights, tokenizer or feature-extractor files are missing or do not fit.
    """
    from transformers import AutoModel

    folder, precision, requested = loading.path, loading.task.model.precision, loading.task.requested
    is_integers = is_int8(precision)
    model = loaded_whole(AutoModel, folder, torch.float32 if is_integers else dtype_of(precision))
    model = model.to(loading.device).eval()
    vocabulary, settings = None, model.config
    if requested.has_text:
        tokenizer = ctc_tokenizer(folder, None, False)
        vocabulary = ctc_vocabulary(tokenizer, settings.vocab_size, settings.pad_token_id, settings.blank_token_id)
    return TransducerModel(
        encoder_network(loading, model, encoder(fastconformer_shape(folder).hop)),
        vocabulary,
        requested,
        loading.quantizers,
        language=requested.text.language,
        one_by_one=is_integers,
    )
