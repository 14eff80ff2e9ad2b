"""Encoder-decoders that read a segment whole and write it in one go: continuous batching, quality checks, fallback.

B batch, F frames, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import OnProgress, Prediction, Readout, RequestedOutputs, Transcript, no_progress
from audiomill.models.family import Loading
from audiomill.models.frames.encoders import EncoderKind, encoder_network
from audiomill.models.frames.encoding import EncodingModel
from audiomill.models.frames.frame_network import FrameNetwork
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.seq2seq.autoregressive import AutoregressiveModel
from audiomill.models.seq2seq.beam.fusion import Fusion, fusion_of
from audiomill.models.seq2seq.decoder_weights import step_precision
from audiomill.models.seq2seq.generation import DecoderAdapter, Generator
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.quality_checks import DecodingMetrics
from audiomill.models.vectors.readout import Quantizer
from audiomill.models.watchdog import heartbeat


class GeneratingModel(AutoregressiveModel):
    """An autoregressive model whose texts a `Generator` makes of what `_encode` gives."""

    def __init__(self, generator: Generator | None, first: DecodingOptions, text: TranscriptConfig | None) -> None:
        super().__init__(first, text)
        self._generator = generator

    @abstractmethod
    def _encode(self, batch: Sequence[Segment], on_progress: OnProgress) -> list[tuple[Tensor, Readout]]:
        """What the decoder is given of each segment, and what is wanted of its hidden states; reported where no text is
        wanted."""

    def spare_memory(self) -> None:
        """Half the rows at a time."""
        if self._generator is not None:
            self._generator.spare_memory()

    @torch.inference_mode()
    def forward_with_progress(self, batch: Sequence[Segment], on_progress: OnProgress) -> list[Prediction]:
        """Reports a row when its text is decoded, or its hidden states are read."""
        if self._generator is None:
            return [Prediction(None, readout) for _, readout in self._encode(batch, on_progress)]
        return self._predictions(batch, self._first, on_progress)

    def decode(self, batch: Sequence[Segment], options: DecodingOptions) -> list[Hypothesis]:
        """Tokens of one batch."""
        return [prediction.text for prediction in self._predictions(batch, options, no_progress)]

    @torch.inference_mode()
    def _predictions(
        self, batch: Sequence[Segment], options: DecodingOptions, on_progress: OnProgress
    ) -> list[Prediction]:
        assert self._generator is not None, "text is wanted"
        cores = [segment.core for segment in batch]
        rows, readouts = zip(*self._encode(cores, no_progress), strict=True)
        texts = self._generator.written(cores, rows, options, on_progress)
        return [Prediction(text, readout) for text, readout in zip(texts, readouts, strict=True)]

    def metrics(self, segments: Sequence[Segment], texts: Sequence[Hypothesis]) -> list[DecodingMetrics]:
        """What the decoder knows about each text."""
        assert self._generator is not None, "text is wanted"
        return self._generator.metrics(segments, texts)

    def transcripts(self, segments: Sequence[Segment], texts: Sequence[Hypothesis]) -> list[Transcript]:
        """Texts, without times of words."""
        assert self._generator is not None, "text is wanted"
        return self._generator.transcripts(texts)


class EncoderDecoder(GeneratingModel, EncodingModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        network: its body is the encoder; changed in place.
        writer: None where no text is wanted.
        requested: what to give.
        quantizers: by name of the want.
        memory_fraction: share of the device's free memory to plan for.
        encoded_at_once_s: audio that the encoder is given at once, where its rows do not see each other's padding; 0: row
            by row.
        fusion: beside the beams that every row is decoded with; None: rows are decoded without beams.
    """

    def __init__(
        self,
        network: FrameNetwork,
        writer: DecoderAdapter | None,
        requested: RequestedOutputs,
        quantizers: Mapping[str, Quantizer],
        memory_fraction: float,
        encoded_at_once_s: float = 0.0,
        fusion: Fusion | None = None,
    ) -> None:
        EncodingModel.__init__(self, network, requested, quantizers, writer is not None)
        self._encoded_at_once_s, text = encoded_at_once_s, requested.transcripts
        generator, first = None, DecodingOptions(stops_repetition=text is not None and text.fallback)
        if writer is not None and text is not None:
            generator = Generator(writer, text, memory_fraction, fusion)
            if fusion is not None:
                first = DecodingOptions(num_beams=text.decoder.beam_size, uses_fusion=True)
        GeneratingModel.__init__(self, generator, first, text)

    def _encode(self, batch: Sequence[Segment], on_progress: OnProgress) -> list[tuple[Tensor, Readout]]:
        """hidden_FD of each row, and what is wanted of its hidden states."""
        rows: list[tuple[Tensor, Readout]] = []
        while len(rows) < len(batch):
            heartbeat()
            some = self._next(batch[len(rows) :])
            hidden_BFD = self._encoded(some)
            counts = self._feed.frames_B().tolist()
            readouts = self._read_out(some, hidden_BFD.device)
            rows += [(row[:count], out) for row, count, out in zip(hidden_BFD, counts, readouts, strict=True)]
            if self._generator is None:
                on_progress(len(some), sum(len(segment.pcm_T) for segment in some))
        return rows

    def _next(self, waiting: Sequence[Segment]) -> Sequence[Segment]:
        """Segments that are encoded together: on a CPU each alone, as a row's numbers then cannot depend on others."""
        if self._network.model.device.type == "cpu":
            return waiting[:1]
        most, count = self._encoded_at_once_s * MODEL_SAMPLE_RATE, 1
        while count < len(waiting) and (count + 1) * max(len(u.pcm_T) for u in waiting[: count + 1]) <= most:
            count += 1
        return waiting[:count]


def load_encoder_decoder(
    loading: Loading, kind: EncoderKind, writer: Callable[[Any, str], DecoderAdapter], encoded_at_once_s: float = 0.0
) -> EncoderDecoder:
    """A checkpoint from a local folder.

    Args:
        loading: what is wanted of which folder.
        kind: options its encoder is fed.
        writer: the model and the number format of its steps -> its decoder's side; asked where text is wanted.
        encoded_at_once_s: see `EncoderDecoder`.

    Raises:
        ModelError: files are missing or do not fit.
    """
    from transformers import AutoModelForSpeechSeq2Seq

    folder, requested, config = loading.path, loading.task.requested, loading.task.model
    precision = config.precision
    dtype = torch.float32 if is_int8(precision) else dtype_of(precision)
    model = loaded_whole(AutoModelForSpeechSeq2Seq, folder, dtype).to(loading.device).eval()
    decoder = None
    if requested.has_text:
        if loading.device.type == "cpu":  # its activations stay in float32
            model.model.decoder.float()
            model.get_output_embeddings().float()
        decoder = writer(model, step_precision(precision, loading.device))
    network = encoder_network(loading, model, kind)
    fusion = None
    if decoder is not None and decoder.pieces is not None:
        search = requested.text.decoder
        if search.beam_size > 1:
            fusion = fusion_of(decoder.pieces, search, loading.storage_options, str(loading.device))
    return EncoderDecoder(
        network, decoder, requested, loading.quantizers, config.memory_fraction, encoded_at_once_s, fusion
    )
