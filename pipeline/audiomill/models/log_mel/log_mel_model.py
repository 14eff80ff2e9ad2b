"""Log-mel spectrograms as a model of frames. B batch, F frames, M mels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Prediction, RequestedOutputs, SpeechModel
from audiomill.models.frames.mel import NUM_FFT, LogMel
from audiomill.models.log_mel.mel_bands import HOP, MELS
from audiomill.models.vectors.readout import CoreFrames, Quantizer, read_out


class LogMelModel(SpeechModel):
    """See `audiomill.models.base.SpeechModel`: its one hidden state is the spectrogram.

    Args:
        requested: what to give.
        quantizers: by name of the want.
    """

    pads_rows_alone = True

    def __init__(self, requested: RequestedOutputs, quantizers: Mapping[str, Quantizer]) -> None:
        self._wants, self._quantizers = requested, quantizers
        self._mel = LogMel(MELS, torch.device("cpu"))

    @torch.inference_mode()
    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Vectors and codes, row by row."""
        results = []
        for segment in batch:
            hidden_1FM = self._spectrogram(segment)
            core = CoreFrames([segment], [hidden_1FM.shape[1]], HOP, hidden_1FM.device)
            (readout,) = read_out(self._wants, {0: hidden_1FM}, None, self._quantizers, lambda layer, core=core: core)  # type: ignore[misc]
            results.append(Prediction(None, readout))
        return results

    def _spectrogram(self, segment: Segment) -> Tensor:
        wave_1T = torch.from_numpy(segment.pcm_T.copy())[None].float() / 32768.0
        padded = torch.nn.functional.pad(wave_1T, (0, max(0, NUM_FFT - wave_1T.shape[1])))
        return self._mel(padded).transpose(1, 2)
