"""Models of frames: text, vectors and codes from one exact forward pass.

B batch, T samples, F frames, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import CONV, Prediction, RequestedOutputs, Transcript
from audiomill.models.ctc.align import word_frames
from audiomill.models.ctc.beam_search import BeamDecoder, stretch_of
from audiomill.models.ctc.emissions import Emissions
from audiomill.models.ctc.greedy_decoding import CtcVocabulary, FrameLabels, contiguous, transcripts, without_special
from audiomill.models.finite import first_not_finite, is_finite, not_finite
from audiomill.models.frames.encoding import EncodingModel
from audiomill.models.frames.frame_network import FrameNetwork
from audiomill.models.vectors.readout import Quantizer
from audiomill.models.watchdog import heartbeat


class FrameModel(EncodingModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        network: see there; changed in place.
        vocabulary: tokens of the CTC head; None where no text is wanted.
        requested: what to give.
        quantizers: by name of the want.
        language: reported in the rows.
        storage_options: for the files of the decoder.
        one_by_one: rows are computed alone, because rounding to 8 bits makes more of the last bits of a batch's sums.
    """

    def __init__(
        self,
        network: FrameNetwork,
        vocabulary: CtcVocabulary | None,
        requested: RequestedOutputs,
        quantizers: Mapping[str, Quantizer],
        *,
        language: str | None,
        storage_options: dict[str, Any] | None = None,
        one_by_one: bool = False,
    ) -> None:
        super().__init__(network, requested, quantizers, vocabulary is not None)
        self._one_by_one = self.pads_rows_alone = one_by_one
        self._model, self._vocabulary, self._language = network.model, vocabulary, language
        self.aligner = self if requested.aligns else None
        if CONV in requested.layers:
            network.body.feature_projection.register_forward_pre_hook(self._keep_conv)
        decoder = requested.text.decoder
        has_beam = decoder.beam_size > 1
        self._num_kept = max(decoder.save_posteriors, decoder.beam_size_token * has_beam)
        self._beam: BeamDecoder | None = None
        if has_beam and vocabulary is not None:
            self._beam = BeamDecoder(decoder, vocabulary, storage_options or {}, str(self._model.device))

    @torch.inference_mode()
    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Best label of every frame, vectors and codes, whichever are wanted."""
        if self._one_by_one and len(batch) > 1:
            return [answer for segment in batch for answer in self.forward([segment])]
        inputs = self._feed([segment.pcm_T for segment in batch])
        texts: Sequence[FrameLabels | None] = [None] * len(batch)
        if self._vocabulary is not None:
            logits_BFV = self._model(**inputs).logits
            if not is_finite(logits_BFV):
                raise not_finite(first_not_finite(self._model, lambda: self._model(**inputs)) or "the logits")
            texts = self._labels(logits_BFV)
        elif self._stack or self._network.convolutions is None:
            self._network.body(**inputs)
        else:  # only codes of the convolutions: the transformer, most of the work, is not run
            self._network.body.feature_projection(self._network.convolutions(inputs))
        readouts = self._read_out(batch, self._model.device)
        return [Prediction(text, readout) for text, readout in zip(texts, readouts, strict=True)]

    def transcripts(self, segments: Sequence[Segment], texts: Sequence[FrameLabels]) -> list[Transcript]:
        """Words with times."""
        assert self._vocabulary is not None, "text is wanted"
        result = self._transcripts(segments, texts, self._vocabulary)
        wanted = self._wants.transcripts
        if wanted is None or not wanted.drop_special_tokens:
            return result
        return [without_special(each, self._vocabulary.special) for each in result]

    def _transcripts(
        self, segments: Sequence[Segment], texts: Sequence[FrameLabels], vocabulary: CtcVocabulary
    ) -> list[Transcript]:
        if self._beam is None:
            return transcripts(segments, texts, vocabulary, self.text_hop, self._language)
        order = [(at, number > 0) for run in contiguous(segments) for number, at in enumerate(run)]
        stretches = [stretch_of(segments[at], texts[at].top, self.text_hop, joins) for at, joins in order]
        result = self._beam.transcripts(stretches, self.text_hop, self._language)
        by_number = {at: text for (at, _), text in zip(order, result, strict=True)}
        return [by_number[at] for at in range(len(segments))]

    @property
    def text_hop(self) -> int:
        """Samples from one letter's frame to the next: adapters make them fewer."""
        return self._feed.text_hop

    @torch.inference_mode()
    def posteriors(self, segment: Segment) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """posteriors_FV of one segment, and the tokens, for pictures."""
        assert self._vocabulary is not None, "text is wanted"
        inputs = self._feed([segment.pcm_T])
        result = self._model(**inputs).logits[0].float().softmax(-1).cpu().numpy()
        self._taps.taken()
        return result, self._vocabulary.tokens

    def _labels(self, logits_BFV: Tensor) -> list[FrameLabels]:
        logprobs_BFV = logits_BFV.float().log_softmax(-1)
        logprobs_BF, labels_BF = logprobs_BFV.max(-1)
        counts = self._feed.text_frames_B().tolist()
        labels, logprobs = labels_BF.int().cpu().numpy(), logprobs_BF.cpu().numpy()
        results = [FrameLabels(labels[row, :count], logprobs[row, :count]) for row, count in enumerate(counts)]
        if self._num_kept:
            tokens, values = self._most_probable(logprobs_BFV)
            tops = [Emissions(tokens[row, :count], values[row, :count]) for row, count in enumerate(counts)]
            results = [each._replace(top=top) for each, top in zip(results, tops, strict=True)]
        if not self._wants.aligns:
            return results
        all_BFV = logprobs_BFV.cpu().numpy()
        return [each._replace(emissions_FV=all_BFV[row, : counts[row]]) for row, each in enumerate(results)]

    def _most_probable(self, logprobs_BFV: Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The blank and the most probable other tokens of each frame, with their log-probabilities."""
        assert self._vocabulary is not None, "text is wanted"
        blank = self._vocabulary.blank
        others_BFV = logprobs_BFV.clone()
        others_BFV[..., blank] = -torch.inf
        values_BFC, tokens_BFC = others_BFV.topk(min(self._num_kept, others_BFV.shape[-1] - 1), dim=-1)
        tokens_BFC = torch.cat([torch.full_like(tokens_BFC[..., :1], blank), tokens_BFC], -1)
        values_BFC = torch.cat([logprobs_BFV[..., blank : blank + 1], values_BFC], -1)
        return tokens_BFC.int().cpu().numpy(), values_BFC.cpu().numpy()

    def edges(
        self, segments: Sequence[Segment], texts: Sequence[FrameLabels], words: Sequence[Sequence[str]]
    ) -> list[list[tuple[int, int]] | None]:
        """See `audiomill.models.base.Aligner`."""
        assert self._vocabulary is not None, "a model with a CTC head"
        results: list[list[tuple[int, int]] | None] = []
        for segment, text, spoken_words in zip(segments, texts, words, strict=True):
            heartbeat()
            assert text.emissions_FV is not None, "alignment was wanted"
            spans = word_frames(spoken_words, text.emissions_FV, self._vocabulary)
            hop, left = self.text_hop, segment.left
            results.append(spans and [(max(0, hop * a - left), max(0, hop * b - left)) for a, b in spans])
        return results

    def _keep_conv(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self._taps.hidden[CONV] = args[0]
