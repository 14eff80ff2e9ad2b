"""Waveforms -> what a wav2vec2-family model takes, padded so that rows do not see each other. For inference and training.

B batch, T samples, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.models.frames.exact import adapter_frames, frame_mask, make_exact
from audiomill.models.frames.fbank import MelFrontEnd, kaldi_fbank, num_mel_frames, standardized
from audiomill.models.preprocessing_files import feature_extractor
from audiomill.models.task import receptive_field

BERT_HOP_SAMPLES = 320
BERT_MIN_SAMPLES = 1_200
"""Two pairs of mel frames: with fewer, their normalisation divides by zero."""


class BertFeatures(NamedTuple):
    """What wav2vec2-BERT takes. `padding`: value behind a row's end."""

    mels: MelFrontEnd
    padding: float


class FrameInputs:
    """Puts masks into a model (see `audiomill.models.frames.exact`) and feeds it.

    Args:
        model: base model, or one with a head, on its device; changed in place.
        fbank: None for waveform models, else the features of wav2vec2-BERT.
        normalize: zero mean and unit variance per segment, as the checkpoint was trained.
        multiple: batches are padded to a multiple of so many frames.
    """

    def __init__(self, model: Any, fbank: BertFeatures | None, normalize: bool, multiple: int = 1) -> None:
        self._model, self._fbank, self._normalize, self._multiple = model, fbank, normalize, multiple
        self._config = model.config
        self._lengths = make_exact(model.base_model)
        self._num_adapters = self._config.num_adapter_layers if getattr(self._config, "add_adapter", False) else 0
        self.hop = BERT_HOP_SAMPLES if fbank is not None else prod(self._config.conv_stride)
        self._min_samples = BERT_MIN_SAMPLES if fbank is not None else receptive_field(self._config)

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> dict[str, Tensor]:
        """Keyword arguments of the model's forward pass, for int16 rows at 16 kHz."""
        return self._mel_pairs(rows) if self._fbank is not None else self._waveforms(rows)

    @property
    def text_hop(self) -> int:
        """Samples from one letter's frame to the next: adapters make them fewer."""
        return self.hop * self._config.adapter_stride**self._num_adapters if self._num_adapters else self.hop

    def hop_of(self, layer: int | None) -> int:
        """The same for every layer."""
        return self.hop

    def frames_B(self, layer: int | None = None) -> Tensor:  # noqa: N802
        """Frames of each row of the last batch, before any adapter."""
        return self._lengths.frames_B

    def text_frames_B(self) -> Tensor:  # noqa: N802
        """Frames of each row of the last batch at the head."""
        return adapter_frames(self._lengths.frames_B, self._config, self._num_adapters)

    def text_frames_of(self, num_samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Frames at the head of rows of these lengths."""
        lengths_B = torch.from_numpy(np.maximum(num_samples, self._min_samples))
        frames_B = (num_mel_frames(lengths_B) + 1) // 2 if self._fbank is not None else self._base_frames(lengths_B)
        return np.asarray(adapter_frames(frames_B, self._config, self._num_adapters).numpy())

    def _waveforms(self, rows: Sequence[NDArray[np.int16]]) -> dict[str, Tensor]:
        waveform_BT, samples_B = self._padded(rows)
        mask_BT = frame_mask(samples_B, waveform_BT.shape[1])
        waveform_BT = waveform_BT.float() / 32768.0
        if self._normalize:
            waveform_BT = _normalized(waveform_BT, mask_BT, samples_B)
        self._lengths.samples_B = samples_B
        self._lengths.frames_B = self._base_frames(samples_B)
        return {"input_values": waveform_BT.to(self._model.dtype), "attention_mask": mask_BT.long()}

    def _mel_pairs(self, rows: Sequence[NDArray[np.int16]]) -> dict[str, Tensor]:
        """Mel frames joined in pairs.

        Of an odd number the last pair is half padding: masked, but alone in Hugging Face the convolutions see it, so
        it counts as the row's own here.
        """
        assert self._fbank is not None, "wav2vec2-BERT"
        pcm_BT, samples_B = self._padded(rows)
        num_mel_B = num_mel_frames(samples_B)
        mel_BFM = self._fbank.mels.log_mels(pcm_BT)
        mask_BF = frame_mask(num_mel_B, mel_BFM.shape[1])
        mel_BFM = standardized(mel_BFM, num_mel_B, mask_BF, lambda v: (v + 1e-7).sqrt(), self._fbank.padding)
        mel_BFM = nn.functional.pad(mel_BFM, (0, 0, 0, mel_BFM.shape[1] % 2), value=self._fbank.padding)
        pairs_BFM = mel_BFM.reshape(len(rows), -1, 2 * mel_BFM.shape[-1])
        self._lengths.frames_B = (num_mel_B + 1) // 2
        mask_BF = frame_mask(num_mel_B // 2, pairs_BFM.shape[1])
        return {"input_features": pairs_BFM.to(self._model.dtype), "attention_mask": mask_BF.long()}

    def _padded(self, rows: Sequence[NDArray[np.int16]]) -> tuple[Tensor, Tensor]:
        """pcm_BT on the device, zeros behind, and the length of each row."""
        lengths = [max(self._min_samples, len(row)) for row in rows]
        pcm_BT = np.zeros((len(rows), self._padded_to(max(lengths))), np.int16)
        for number, row in enumerate(rows):
            pcm_BT[number, : len(row)] = row
        device = self._model.device
        return torch.from_numpy(pcm_BT).to(device), torch.tensor(lengths, device=device)

    def _padded_to(self, num_samples: int) -> int:
        frames = -(-(num_samples - self._min_samples) // self.hop) + 1
        last = -(-frames // self._multiple) * self._multiple - 1
        return num_samples if self._multiple == 1 else self._min_samples + self.hop * last

    def _base_frames(self, lengths_B: Tensor) -> Tensor:
        for kernel, stride in zip(self._config.conv_kernel, self._config.conv_stride, strict=True):
            lengths_B = (lengths_B - kernel) // stride + 1
        return lengths_B


def fbank_of(folder: Path, model: Any) -> BertFeatures | None:
    """The features that wav2vec2-BERT takes; None for models that take waveforms."""
    if model.config.model_type != "wav2vec2-bert":
        return None
    from transformers import SeamlessM4TFeatureExtractor

    extractor = feature_extractor(folder) or SeamlessM4TFeatureExtractor()
    return BertFeatures(kaldi_fbank(extractor.num_mel_bins, model.device), extractor.padding_value)


def normalizes(folder: Path) -> bool:
    """Whether a checkpoint wants zero mean and unit variance; yes where it does not say."""
    return bool(getattr(feature_extractor(folder), "do_normalize", True))


def _normalized(waveform_BT: Tensor, mask_BT: Tensor, samples_B: Tensor) -> Tensor:
    """Zero mean, unit variance over each row's own samples, zeros behind; sums in double, so that the
    padding's length does not show. Source: transformers `Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm`."""
    count = samples_B[:, None].double()
    mean = waveform_BT.double().sum(-1, keepdim=True) / count
    centred = (waveform_BT.double() - mean) * mask_BT
    variance = centred.square().sum(-1, keepdim=True) / count
    return (centred / torch.sqrt(variance + 1e-7)).float()
