"""wav2vec (v1) and vq-wav2vec as the stages see them: vectors and codes.

B batch, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Parity, Prediction, RequestedOutputs, SpeechModel, stack_rows
from audiomill.models.vectors.readout import CoreFrames, Quantizer, read_out
from audiomill.models.wav2vec1.network import Wav2Vec, num_frames


class Wav2VecModel(SpeechModel):
    """See `audiomill.models.base.SpeechModel`. Hidden state 0 is z, 1 is c.

    Args:
        model: in evaluation mode on its device.
        requested: what to give.
        quantizers: k-means codebooks by name of the want.
    """

    def __init__(self, model: Wav2Vec, requested: RequestedOutputs, quantizers: Mapping[str, Quantizer]) -> None:
        self._model, self._wants, self._quantizers = model, requested, quantizers
        self._parameter = next(model.parameters())

    def padded_length(self, num_samples: int) -> int:
        """Rows are padded to the longest of their batch."""
        return num_samples

    def parity(self, segment: Segment) -> Parity:
        """Nobody to compare with."""
        return Parity(note="input and forward pass: transformers has no model that reads fairseq's files")

    @torch.inference_mode()
    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Vectors and codes."""
        spec, device = self._model.spec, self._parameter.device
        lengths = [max(spec.receptive_field, len(u.pcm_T)) for u in batch]
        pcm_BT = stack_rows(batch, max(lengths))
        waveform_BT = (torch.from_numpy(pcm_BT).to(device).float() / 32768.0).to(self._parameter.dtype)
        z_BFC, c_BFC, codes_BFK, _ = self._model(
            waveform_BT, torch.tensor(lengths, device=device), 1 in self._wants.layers
        )
        hidden = {0: z_BFC} | ({} if c_BFC is None else {1: c_BFC})
        core = CoreFrames(batch, num_frames(spec, lengths), spec.hop, device)
        readouts = read_out(self._wants, hidden, codes_BFK, self._quantizers, lambda layer: core)
        return [Prediction(None, readout) for readout in readouts]
