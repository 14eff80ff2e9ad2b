"""The tagger as the stages see it. B batch, T samples, L labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Parity, Prediction, Readout, SpeechModel
from audiomill.models.family import Loading
from audiomill.models.frames.encoders import extractor_of
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.watchdog import heartbeat

_FULL_SCALE = 32768.0
_WINDOW = samples_from_seconds(10.24)
_LEAST_SAMPLES = 400
_AT_ONCE = 8


def load_tagger(loading: Loading) -> Tagger:
    """From a local folder.

    Raises:
        ModelError: weights or feature-extractor files are missing or do not fit.
    """
    from transformers import AutoModelForAudioClassification

    extractor = extractor_of(loading.path, MODEL_SAMPLE_RATE)
    model = loaded_whole(AutoModelForAudioClassification, loading.path, torch.float32).to(loading.device).eval()
    return Tagger(model, extractor, loading.task.requested.tags)


class Tagger(SpeechModel):
    """See `audiomill.models.base.SpeechModel`. Probabilities of a segment are the means of those of its windows.

    Args:
        model: of transformers, in evaluation mode on its device.
        extractor: transformers' own.
        num_tags: most probable labels to tell.
    """

    pads_rows_alone = True

    def __init__(self, model: Any, extractor: Any, num_tags: int) -> None:
        self._model, self._extractor, self._num_tags = model, extractor, num_tags

    def padded_length(self, num_samples: int) -> int:
        """Whole windows."""
        return max(1, -(-num_samples // _WINDOW)) * _WINDOW

    def parity(self, segment: Segment) -> Parity:
        return Parity(note="input and forward pass: they are transformers' own")

    @torch.inference_mode()
    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """The most probable labels of each row."""
        windows = [(row, part) for row, each in enumerate(batch) for part in _windows(each)]
        sums: list[Any] = [0.0] * len(batch)
        counts = [0] * len(batch)
        for first in range(0, len(windows), _AT_ONCE):
            some = windows[first : first + _AT_ONCE]
            waves = [part.astype(np.float32) / _FULL_SCALE for _, part in some]
            given = self._extractor(waves, sampling_rate=MODEL_SAMPLE_RATE, return_tensors="pt")
            probability_BL = self._model(given["input_values"].to(self._model.device)).logits.sigmoid().cpu().numpy()
            for (row, _), probability_L in zip(some, probability_BL, strict=True):
                sums[row] = sums[row] + probability_L.astype(np.float64)
                counts[row] += 1
            heartbeat()
        return [
            Prediction(None, Readout(tags=self._tags(each / count))) for each, count in zip(sums, counts, strict=True)
        ]

    def _tags(self, probability_L: NDArray[np.float64]) -> tuple[tuple[str, float], ...]:
        names = self._model.config.id2label
        order = np.argsort(-probability_L, kind="stable")[: self._num_tags].tolist()
        return tuple((str(names[at]), round(float(probability_L[at]), 4)) for at in order)


def _windows(segment: Segment) -> list[NDArray[np.int16]]:
    pcm_T = segment.pcm_T[segment.left : len(segment.pcm_T) - segment.right]
    parts = [pcm_T[start : start + _WINDOW] for start in range(0, max(1, len(pcm_T)), _WINDOW)]
    return [np.pad(part, (0, max(0, _LEAST_SAMPLES - len(part)))) for part in parts]
