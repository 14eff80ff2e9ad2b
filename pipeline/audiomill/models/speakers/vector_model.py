"""A network of voices as the stages see it: one vector a segment. B batch, D width."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from audiomill.models.base import Parity, Prediction, RequestedOutputs, SpeechModel, Utterance
from audiomill.models.speakers.embedder import Embedder
from audiomill.models.vectors.readout import CoreFrames, read_out


class VectorModel(SpeechModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        embedder: makes the vectors.
        requested: what to give.
    """

    pads_rows_alone = True

    def __init__(self, embedder: Embedder, requested: RequestedOutputs) -> None:
        self._embedder, self._wants = embedder, requested

    def padded_length(self, num_samples: int) -> int:
        """Nothing is padded but what is too short to be heard."""
        return max(num_samples, self._embedder.least)

    def parity(self, utterance: Utterance) -> Parity:
        """Transformers has no such model."""
        return Parity(note="input and forward pass: transformers has no such model")

    def forward(self, batch: Sequence[Utterance]) -> list[Prediction]:
        """The vector of each row, its context left out."""
        without_context = [each._replace(pcm_T=each.pcm_T[each.left : len(each.pcm_T) - each.right]) for each in batch]
        without_context = [each._replace(left=0, right=0) for each in without_context]
        vectors_BD = torch.from_numpy(self._embedder.vectors([each.pcm_T for each in without_context]))
        longest = max(len(each.pcm_T) for each in without_context)
        core = CoreFrames(without_context, [1] * len(without_context), max(1, longest), vectors_BD.device)
        out = read_out(self._wants, {0: vectors_BD[:, None]}, None, {}, lambda layer: core)
        return [Prediction(None, readout) for readout in out]
