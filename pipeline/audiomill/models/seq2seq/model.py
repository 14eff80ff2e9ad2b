"""Encoder-decoders that read a segment whole and write it in one go: continuous batching, quality checks, temperature fallback.

B batch, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import OnProgress, Prediction, Readout, RequestedOutputs, Transcript, no_progress
from audiomill.models.family import Loading
from audiomill.models.frames.encoders import Encoder, encoder_network
from audiomill.models.frames.encoding import EncodingModel
from audiomill.models.frames.frame_network import FrameNetwork
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.load import dtype_of
from audiomill.models.precision import is_int8
from audiomill.models.seq2seq.beam.fusion import Fusion, fusion_of
from audiomill.models.seq2seq.decoder_weights import step_precision
from audiomill.models.seq2seq.generation import DecoderAdapter, Generator
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.quality_checks import DecodingMetrics
from audiomill.models.seq2seq.temperature_fallback import FallbackPolicy
from audiomill.models.vectors.readout import Quantizer
from audiomill.models.watchdog import heartbeat


class EncoderDecoder(EncodingModel):
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

    pads_rows_alone = True

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
        super().__init__(network, requested, quantizers, writer is not None)
        self._encoded_at_once_s, self._first = encoded_at_once_s, DecodingOptions()
        self._writing: Generator | None = None
        if writer is not None and requested.transcripts is not None:
            self._writing = Generator(writer, requested.transcripts, memory_fraction, fusion)
        if requested.transcripts is not None and requested.transcripts.temperature_fallback:
            self._first = DecodingOptions(stops_repetition=True)
        if fusion is not None and requested.transcripts is not None:
            self._first = DecodingOptions(num_beams=requested.transcripts.decoder.beam_size, uses_fusion=True)
        if requested.transcripts is not None and requested.transcripts.temperature_fallback:
            self.fallback = FallbackPolicy(model=self, first=self._first, checks=requested.transcripts)

    def spare_memory(self) -> None:
        """Half the rows at a time."""
        if self._writing is not None:
            self._writing.spare_memory()

    def context(self, num_samples: int, options: DecodingOptions) -> int:
        """The encoder is shown the segment, however it is decoded."""
        return num_samples

    @torch.inference_mode()
    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Tokens, vectors and codes, whichever are wanted. Where text is wanted a segment's context is not looked at."""
        return self.forward_with_progress(batch, no_progress)

    @torch.inference_mode()
    def forward_with_progress(self, batch: Sequence[Segment], on_progress: OnProgress) -> list[Prediction]:
        """Reports a row when its text is written, or its hidden states are read."""
        if self._writing is None:
            return [Prediction(None, readout) for _, readout in self._rows(batch, on_progress)]
        cores = [segment.core for segment in batch]
        rows, readouts = [], []
        for hidden_FD, readout in self._rows(cores):
            rows.append(hidden_FD)
            readouts.append(readout)
        texts = self._writing.written(cores, rows, self._first, on_progress)
        return [Prediction(text, readout) for text, readout in zip(texts, readouts, strict=True)]

    @torch.inference_mode()
    def decode(self, batch: Sequence[Segment], options: DecodingOptions) -> list[Hypothesis]:
        """Tokens of one batch."""
        assert self._writing is not None, "text is wanted"
        cores = [segment.core for segment in batch]
        return self._writing.written(cores, [hidden_FD for hidden_FD, _ in self._rows(cores)], options, no_progress)

    def _rows(self, batch: Sequence[Segment], on_progress: OnProgress = no_progress) -> list[tuple[Tensor, Readout]]:
        """hidden_FD of each row, and what is wanted of its hidden states."""
        rows: list[tuple[Tensor, Readout]] = []
        while len(rows) < len(batch):
            heartbeat()
            some = self._next(batch[len(rows) :])
            hidden_BFD = self._encoded(some)
            counts = self._feed.frames_B().tolist()
            readouts = self._read_out(some, hidden_BFD.device)
            rows += [(row[:count], out) for row, count, out in zip(hidden_BFD, counts, readouts, strict=True)]
            if self._writing is None:
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

    def metrics(self, segments: Sequence[Segment], texts: Sequence[Hypothesis]) -> list[DecodingMetrics]:
        """What the decoder knows about each text."""
        assert self._writing is not None, "text is wanted"
        return self._writing.metrics(segments, texts)

    def transcripts(self, segments: Sequence[Segment], texts: Sequence[Hypothesis]) -> list[Transcript]:
        """Texts, without times of words."""
        assert self._writing is not None, "text is wanted"
        return self._writing.transcripts(texts)


def load_encoder_decoder(
    loading: Loading, kind: Encoder, writer: Callable[[Any, str], DecoderAdapter], encoded_at_once_s: float = 0.0
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
    if requested.transcripts is not None:
        if loading.device.type == "cpu":  # its activations stay in float32
            model.model.decoder.float()
            model.get_output_embeddings().float()
        decoder = writer(model, step_precision(precision, loading.device))
    network = encoder_network(loading, model, kind)
    fusion = None
    if decoder is not None and decoder.pieces is not None and requested.transcripts is not None:
        search = requested.transcripts.decoder
        if search.beam_size > 1:
            fusion = fusion_of(decoder.pieces, search, loading.storage_options, str(loading.device))
    return EncoderDecoder(
        network, decoder, requested, loading.quantizers, config.memory_fraction, encoded_at_once_s, fusion
    )
