"""Any checkpoint of ours that gives vectors as the frozen encoder of a speech LLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from audiomill.config.stages import ModelConfig
from audiomill.errors import ModelError
from audiomill.models.base import Parity, SpeechModel, Utterance, VectorWant, Wants
from audiomill.models.checkpoint import Checkpoint, find_checkpoint, shape_of
from audiomill.models.family import VECTORS
from audiomill.models.shape import Shape
from audiomill.models.task import TaskSpec


class HearingEncoder:
    """Frames of one hidden state, exact whatever the batch, as `embed` gives them.

    Args:
        model: wants that hidden state alone.
        device: of the frames that it gives.
    """

    def __init__(self, model: SpeechModel, device: torch.device) -> None:
        self._model, self._device = model, device

    def frames(self, batch: Sequence[Utterance]) -> list[Tensor]:
        """frames_FE of each utterance, without its context. On a CPU each is encoded alone: the last bits of a batch's sums
        depend on its rows, and a training that goes on after a kill has others beside them."""
        alone = self._device.type == "cpu"
        calls = [[utterance] for utterance in batch] if alone else [batch]
        answers = [answer for each in calls for answer in self._model.forward(each)]
        return [torch.from_numpy(answer.readout.vectors[0].values_ND).to(self._device) for answer in answers]

    def padded_length(self, num_samples: int) -> int:
        return self._model.padded_length(num_samples)

    def parity(self, utterance: Utterance) -> Parity:
        return self._model.parity(utterance)


def found_encoder(name: str, storage_options: dict[str, Any]) -> tuple[Checkpoint, Shape]:
    """A checkpoint that gives frames at 16 kHz.

    Raises:
        ModelError: it gives none.
    """
    found = find_checkpoint(ModelConfig(model=name), storage_options)
    shape = shape_of(found) if VECTORS in found.gives else None
    if shape is None or shape.is_pooled or shape.form is not None:
        raise ModelError(
            f"{name}: a {found.family.name} checkpoint gives no frames that a projector could read; expected Whisper, "
            "wav2vec2, HuBERT, WavLM, Parakeet or another encoder of speech"
        )
    return found, shape


def loaded_encoder(
    name: str, layer: int, hop: int, model: ModelConfig, storage_options: dict[str, Any]
) -> HearingEncoder:
    """The encoder of a speech LLM on the device of `model`, in its number format."""
    import dataclasses

    from audiomill.models.device import resolve_device
    from audiomill.models.load import load_model

    wants = Wants(vectors=(VectorWant(layer=layer, dtype="fp32"),))
    own = dataclasses.replace(model, model=name)
    task = TaskSpec(label=name, model=own, wants=wants, hop=hop, batch_samples=0)
    return HearingEncoder(load_model(task, storage_options), torch.device(resolve_device(model.device)))
