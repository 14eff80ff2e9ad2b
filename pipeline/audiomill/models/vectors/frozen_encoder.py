"""Any checkpoint of ours that gives vectors as the frozen encoder of a model that learns behind it. F frames, E width."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.errors import ModelError
from audiomill.models.base import Parity, RequestedOutputs, SpeechModel, VectorRequest
from audiomill.models.checkpoint import Checkpoint, find_checkpoint, shape_of
from audiomill.models.device import resolve_device
from audiomill.models.family import VECTORS
from audiomill.models.load import load_speech_model
from audiomill.models.task import Shape

CACHED_BYTES = 1 << 30
"""Of encoded clips: without augmentation each is the same in every epoch, and the encoder most of the work."""


class FrozenEncoder:
    """Frames of one hidden state, exact whatever the batch, as `embed` gives them.

    Args:
        model: wants that hidden state alone.
        device: of the frames that it gives.
    """

    def __init__(self, model: SpeechModel, device: torch.device) -> None:
        self._model, self._device = model, device

    def frames(self, batch: Sequence[Segment]) -> list[Tensor]:
        """frames_FE of each segment, without its context. On a CPU each is encoded alone: the last bits of a batch's sums
        depend on its rows, and a training that goes on after a kill has others beside them."""
        alone = self._device.type == "cpu"
        calls = [[segment] for segment in batch] if alone else [batch]
        answers = [answer for call in calls for answer in self._model.forward(call)]
        return [torch.from_numpy(answer.readout.vectors[0].values_ND).to(self._device) for answer in answers]

    def padded_length(self, num_samples: int) -> int:
        return self._model.padded_length(num_samples)

    def parity(self, segment: Segment) -> Parity:
        return self._model.parity(segment)


def most_samples(checkpoint: Checkpoint) -> int | None:
    """Of a clip that an encoder can be shown; None: any."""
    window_s = checkpoint.family.window_s
    return None if window_s is None else samples_from_seconds(window_s)


def found_encoder(name: str, storage_options: dict[str, Any]) -> tuple[Checkpoint, Shape]:
    """A checkpoint that gives frames at 16 kHz.

    Raises:
        ModelError: it gives none.
    """
    checkpoint = find_checkpoint(ModelConfig(model=name), storage_options)
    shape = shape_of(checkpoint) if checkpoint.offers(VECTORS) else None
    if shape is None or shape.is_pooled or shape.form is not None:
        raise ModelError(
            f"{name}: a {checkpoint.family.name} checkpoint gives no frames to learn on; expected Whisper, "
            "wav2vec2, HuBERT, WavLM, Parakeet or another encoder of speech"
        )
    return checkpoint, shape


def loaded_encoder(
    name: str, want: VectorRequest, model: ModelConfig, storage_options: dict[str, Any]
) -> FrozenEncoder:
    """An encoder on the device of `model`, in its number format, that gives one kind of frames."""
    encoder = load_speech_model(
        dataclasses.replace(model, model=name), RequestedOutputs(vectors=(want,)), storage_options
    )
    return FrozenEncoder(encoder, torch.device(resolve_device(model.device)))


class FeatureCache:
    """Frames of clips, encoded once where nothing is changed between epochs.

    Args:
        encoder: frozen.
        keeps: clips come again as they are.
    """

    def __init__(self, encoder: FrozenEncoder, keeps: bool) -> None:
        self._encoder, self._room = encoder, CACHED_BYTES if keeps else 0
        self._cached: dict[bytes, Tensor] = {}

    def frames(self, rows: Sequence[NDArray[np.int16]]) -> list[Tensor]:
        """frames_FE of each row, float32."""
        keys = [hashlib.sha256(row.tobytes()).digest() for row in rows]
        results = {key: self._cached[key] for key in keys if key in self._cached}
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in results}
        if new:
            segments = [Segment(row, 0, 0, ("", None), 0, None) for row in new.values()]
            frames = [frame.float() for frame in self._encoder.frames(segments)]
            results |= zip(new, frames, strict=True)
            for key, each in zip(new, frames, strict=True):
                self._keep(key, each)
        return [results[key] for key in keys]

    def _keep(self, key: bytes, frames: Tensor) -> None:
        size = frames.numel() * frames.element_size()
        if size <= self._room:
            self._cached[key], self._room = frames, self._room - size
