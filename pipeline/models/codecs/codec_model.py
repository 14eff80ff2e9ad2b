"""A codec's encoder as the stages see it. K codebooks, F frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.errors import ModelError
from audiomill.models.base import Aligner, Answer, Ladder, OnHeard, Packer, Parity, Transcript, Utterance, Wants
from audiomill.models.family import Loading
from audiomill.models.frames.encoders import extractor_of
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.pulse import beat
from audiomill.models.vectors.readout import CoreFrames, read_out

NOT_FOR_ENCODE = frozenset(("padding_mask", "attention_mask"))
"""Rows go alone: there is no padding that must be told from sound."""


def load_codec(loading: Loading, hop: int) -> CodecModel:
    """A codec from a local folder.

    Raises:
        ModelError: weights or feature-extractor files are missing or do not fit, or a package that the extractor needs.
    """
    from transformers import AutoModel

    try:
        extractor = extractor_of(loading.path)
    except ImportError as error:
        raise ModelError(
            f"{loading.path}: its feature extractor needs {error.name or error}: pip install torchaudio"
        ) from error
    model = loaded_whole(AutoModel, loading.path, torch.float32).to(loading.device).eval()
    return CodecModel(model, extractor, loading.task.wants, hop)


class CodecModel:
    """See `audiomill.models.base.SpeechModel`. Convolutions of a codec see padding, and not all take a mask: rows go alone.

    Args:
        model: of transformers, in evaluation mode on its device.
        extractor: transformers' own.
        wants: what to give.
        hop: samples from one frame to the next.
    """

    on_heard: OnHeard | None = None
    tells_rows = False
    ladder: Ladder | None = None
    packer: Packer | None = None
    aligner: Aligner | None = None
    pads_rows_alone = True

    def __init__(self, model: Any, extractor: Any, wants: Wants, hop: int) -> None:
        self._model, self._extractor, self._wants, self._hop = model, extractor, wants, hop

    def padded_length(self, num_samples: int) -> int:
        """Whole frames."""
        return -(-num_samples // self._hop) * self._hop

    def spare_memory(self) -> None:
        """Nothing is kept between rows."""

    def parity(self, utterance: Utterance) -> Parity:
        """Nothing of it is ours."""
        return Parity(note="input and forward pass: they are transformers' own")

    @torch.inference_mode()
    def forward(self, batch: Sequence[Utterance]) -> list[Answer]:
        """Codes of each row."""
        return [answer for utterance in batch for answer in self._alone(utterance)]

    def _alone(self, utterance: Utterance) -> list[Answer]:
        beat()
        codes_BFK = self._codes_kf(utterance).T[None]
        core = CoreFrames([utterance], [codes_BFK.shape[1]], self._hop, codes_BFK.device)
        return [Answer(None, readout) for readout in read_out(self._wants, {}, codes_BFK, {}, lambda layer: core)]

    def _codes_kf(self, utterance: Utterance) -> Tensor:
        wave = utterance.pcm_T.astype(np.float32) / 32768.0
        wave = np.pad(wave, (0, max(0, self._hop - len(wave))))
        given = self._extractor(wave, sampling_rate=MODEL_SAMPLE_RATE, return_tensors="pt")
        inputs = {name: each.to(self._model.device) for name, each in given.items() if name not in NOT_FOR_ENCODE}
        codes: Tensor = self._model.encode(**inputs).audio_codes[0]
        return codes

    def transcripts(self, utterances: Sequence[Utterance], texts: Sequence[Any]) -> list[Transcript]:
        raise AssertionError("a codec does not transcribe")
