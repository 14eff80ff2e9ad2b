"""The encoder of a neural audio codec as the stages see it. K codebooks, F frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.errors import ModelError
from audiomill.models.base import Parity, Prediction, RequestedOutputs, SpeechModel
from audiomill.models.codecs.windows import Encode, Sound, dac, encodec, encodec_chunks, in_one_piece, mimi
from audiomill.models.family import Loading
from audiomill.models.frames.encoders import extractor_of
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.task import Hop, Shape
from audiomill.models.vectors.readout import CoreFrames, read_out
from audiomill.models.watchdog import heartbeat

MOST_KEPT = 64
"""Windows that are remembered: neighbours come soon after each other."""


class Overlaps:
    """Compares the codes of windows of one recording where they overlap.

    Args:
        step: from one frame to the next.
    """

    def __init__(self, step: Hop) -> None:
        self._step = step
        self._seen: list[tuple[tuple[str, int | None], int, NDArray[np.int64]]] = []
        self.num_compared = self.num_differing = 0

    def add(self, segment: Segment, codes_KF: NDArray[np.int64]) -> None:
        """Takes the codes of a window with its context."""
        first = round(Fraction(segment.start - segment.left) / self._step)
        if any((track, other) == (segment.track, first) for track, other, _ in self._seen):
            return  # heard again
        for track, other, theirs_KF in self._seen:
            start, stop = max(first, other), min(first + codes_KF.shape[1], other + theirs_KF.shape[1])
            if track == segment.track and start < stop:
                mine, others = codes_KF[:, start - first : stop - first], theirs_KF[:, start - other : stop - other]
                self.num_compared += mine.size
                self.num_differing += int((mine != others).sum())
        self._seen = [*self._seen[-MOST_KEPT + 1 :], (segment.track, first, codes_KF)]

    def note(self) -> str:
        """In words; empty where no windows overlapped."""
        if not self.num_compared:
            return ""
        share = self.num_differing / self.num_compared
        return f"; windows: of codes that two windows gave to the same frames {share:.1%} differ (a longer --chunk-overlap-seconds, fewer)"


ENCODERS: Mapping[str, Encode] = {"dac": dac, "encodec": encodec, "mimi": mimi}
"""By the model type of its configuration; others in one piece."""


def load_codec(loading: Loading, shape: Shape) -> CodecModel:
    """A codec from a local folder.

    Raises:
        ModelError: weights or feature-extractor files are missing or do not fit, or a package that the extractor needs.
    """
    from transformers import AutoModel

    assert shape.form is not None
    try:
        extractor = extractor_of(loading.path, shape.form.rate)
    except ImportError as error:
        raise ModelError(
            f"{loading.path}: its feature extractor needs {error.name or error}: pip install torchaudio"
        ) from error
    model = loaded_whole(AutoModel, loading.path, torch.float32).to(loading.device).eval()
    encode = ENCODERS.get(model.config.model_type, in_one_piece)
    if getattr(model.config, "chunk_length", None) is not None:
        encode = encodec_chunks
    return CodecModel(model, extractor, encode, loading.task.requested, shape)


class CodecModel(SpeechModel):
    """See `audiomill.models.base.SpeechModel`. Convolutions of a codec see padding, and not all take a mask: rows go alone.

    Args:
        model: of transformers, in evaluation mode on its device.
        extractor: transformers' own.
        encode: how it goes through a recording.
        requested: what to give.
        shape: the codec's clock and form.
    """

    pads_rows_alone = True

    def __init__(self, model: Any, extractor: Any, encode: Encode, requested: RequestedOutputs, shape: Shape) -> None:
        assert shape.form is not None
        self._model, self._extractor, self._encode, self._wants = model, extractor, encode, requested
        self._form, self._step = shape.form, shape.step
        self._overlaps = Overlaps(shape.step)
        self._least = -(-shape.hop // shape.frames_a_hop)

    def padded_length(self, num_samples: int) -> int:
        """Whole frames."""
        return int(-(-num_samples // self._step) * self._step)

    def parity(self, segment: Segment) -> Parity:
        """Nothing of it is ours but the windows that long recordings are heard in."""
        return Parity(note=f"input and forward pass: they are transformers' own{self._overlaps.note()}")

    @torch.inference_mode()
    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Codes of each row."""
        return [answer for segment in batch for answer in self._alone(segment)]

    def _alone(self, segment: Segment) -> list[Prediction]:
        heartbeat()
        wave_TK = self._features(segment)
        missing = max(0, self._least - len(wave_TK))  # convolutions take no less than a frame
        given_TK = np.pad(wave_TK, ((0, missing), (0, 0))) if missing else wave_TK
        sound = Sound(given_TK, partial(self._input, given_TK), self._model.device)
        codes_KF, scales = self._encode(self._model, sound)
        num_frames = max(1, int(-(-len(wave_TK) * MODEL_SAMPLE_RATE // (self._form.rate * self._step))))
        if self._encode is in_one_piece and (segment.left or segment.right):
            self._overlaps.add(segment, codes_KF.cpu().numpy())
        codes_BFK = codes_KF[:, :num_frames].T[None]
        core = CoreFrames([segment], [codes_BFK.shape[1]], self._step, codes_BFK.device)
        out = read_out(self._wants, {}, codes_BFK, {}, lambda layer: core)
        return [Prediction(None, readout._replace(scales=scales)) for readout in out]

    def _features(self, segment: Segment) -> NDArray[np.float32]:
        """wave_TK in the codec's form."""
        if segment.waves:
            return segment.wave_TK
        wave_T = soxr.resample(segment.pcm_T.astype(np.float32) / 32768.0, MODEL_SAMPLE_RATE, self._form.rate, "HQ")
        return np.repeat(wave_T[:, None], self._form.num_channels, axis=1)

    def _input(self, wave_TK: NDArray[np.float32]) -> dict[str, Tensor]:
        """What the extractor makes of it, without masks: a row goes alone, so there is no padding to be told from sound."""
        wave = wave_TK[:, 0] if self._form.num_channels == 1 else wave_TK.T
        given = self._extractor(wave, sampling_rate=self._form.rate, return_tensors="pt")
        return {name: each.to(self._model.device) for name, each in given.items() if not name.endswith("_mask")}
