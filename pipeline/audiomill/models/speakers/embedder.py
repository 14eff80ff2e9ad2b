"""A network that makes one speaker embedding, for rows of any length. B batch, T samples, N rows, D width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Prediction, RequestedOutputs, SpeechModel
from audiomill.models.vectors.readout import CoreFrames, read_out
from audiomill.models.watchdog import heartbeat

FULL_SCALE = 32768.0
_MOST_SAMPLES = 10 * MODEL_SAMPLE_RATE
"""Longer rows are heard in stretches of one length, and their vectors averaged: an hour costs what its minutes cost."""
_BATCH_SAMPLES = 60 * MODEL_SAMPLE_RATE


@dataclass(frozen=True)
class SpeakerEmbedder:
    """`forward`: pcm_BT of one length -> vectors_BD; `width`: D; `least`: samples that it needs; `device`: of its weights.

    Rows of one length go together, others never: so nothing is padded, and a row gives what it gives alone.
    """

    forward: Callable[[Tensor], Tensor]
    width: int
    least: int
    device: torch.device

    @torch.inference_mode()
    def vectors(self, rows: Sequence[NDArray[np.int16]]) -> NDArray[np.float32]:
        """values_ND, one a row; rows shorter than `least` are filled up with zeros."""
        parts = [(number, part) for number, row in enumerate(rows) for part in self._stretches(row)]
        parts.sort(key=lambda each: len(each[1]))
        sums = np.zeros((len(rows), self.width), np.float64)
        counts = np.zeros(len(rows), np.int64)
        for length, some in groupby(parts, key=lambda each: len(each[1])):
            alike, at_once = list(some), max(1, _BATCH_SAMPLES // length)
            for first in range(0, len(alike), at_once):
                batch = alike[first : first + at_once]
                pcm_BT = torch.from_numpy(np.stack([part for _, part in batch])).to(self.device)
                for (number, _), vector in zip(batch, self.forward(pcm_BT).cpu().numpy(), strict=True):
                    sums[number] += vector
                    counts[number] += 1
                heartbeat()
        result: NDArray[np.float32] = (sums / counts[:, None]).astype(np.float32)
        return result

    def _stretches(self, row_T: NDArray[np.int16]) -> list[NDArray[np.int16]]:
        if len(row_T) < self.least:
            row_T = np.pad(row_T, (0, self.least - len(row_T)))
        count = -(-len(row_T) // _MOST_SAMPLES)
        length = len(row_T) // count
        return [row_T[at * length : (at + 1) * length] for at in range(count)]


class VectorModel(SpeechModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        embedder: makes the vectors.
        requested: what to give.
    """

    pads_rows_alone = True

    def __init__(self, embedder: SpeakerEmbedder, requested: RequestedOutputs) -> None:
        self._embedder, self._wants = embedder, requested

    def padded_length(self, num_samples: int) -> int:
        """Nothing is padded but what is too short to be heard."""
        return max(num_samples, self._embedder.least)

    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """The vector of each row, its context left out."""
        without_context = [each._replace(pcm_T=each.pcm_T[each.left : len(each.pcm_T) - each.right]) for each in batch]
        without_context = [each._replace(left=0, right=0) for each in without_context]
        vectors_BD = torch.from_numpy(self._embedder.vectors([each.pcm_T for each in without_context]))
        longest = max(len(each.pcm_T) for each in without_context)
        core = CoreFrames(without_context, [1] * len(without_context), max(1, longest), vectors_BD.device)
        out = read_out(self._wants, {0: vectors_BD[:, None]}, None, {}, lambda layer: core)
        return [Prediction(None, readout) for readout in out]
