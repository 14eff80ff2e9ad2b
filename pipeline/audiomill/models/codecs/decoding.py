"""Codes -> sound, by a codec's own decoder. K codebooks, F frames, T samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE, Form
from audiomill.models.frames.whole import loaded_whole
from audiomill.models.task import Shape

WINDOW_S, MARGIN_S = 30.0, 2.0
"""Longer sound is made in windows; what a window says of its margins is dropped."""


class CodecDecoder:
    """See `audiomill.models.family.Resynthesizer`.

    Args:
        model: of transformers, in evaluation mode on its device.
        frame_rate: codes a second.
    """

    def __init__(self, model: Any, frame_rate: float) -> None:
        self._model, self._frame_rate = model, frame_rate
        config = model.config
        names = ("output_sampling_rate", "sampling_rate", "sample_rate")
        rate = next(value for name in names if (value := getattr(config, name, None)) is not None)
        self.form = Form(int(rate), int(getattr(config, "audio_channels", None) or 1))
        self._is_chunked = getattr(config, "chunk_length", None) is not None

    @torch.inference_mode()
    def sound(self, codes_KF: NDArray[Any], scales: Sequence[float]) -> NDArray[np.float32]:
        """wave_TK in `form`; `scales`: of the codes table."""
        codes = torch.from_numpy(codes_KF.astype(np.int64)).to(self._model.device)[None]
        if self._is_chunked:
            return _sound_of_chunks(self._model, codes, scales)
        per_window, margin = (round(seconds * self._frame_rate) for seconds in (WINDOW_S, MARGIN_S))
        num_frames, result = codes.shape[-1], []
        for first in range(0, num_frames, per_window):
            last = min(first + per_window, num_frames)
            start, stop = max(0, first - margin), min(num_frames, last + margin)
            wave_TK = self._decoded(codes[..., start:stop])
            begin, end = self._sample(first - start), self._sample(last - start)
            result.append(wave_TK[begin:] if last == num_frames else wave_TK[begin:end])
        return np.concatenate(result)

    def _sample(self, num_frames: int) -> int:
        """Where a frame begins; decoders of odd strides give a few samples less at the end than that says."""
        return round(num_frames * self.form.rate / self._frame_rate)

    def _decoded(self, codes_1KF: Tensor) -> NDArray[np.float32]:
        if self._model.config.model_type == "encodec":
            values = self._model.decode(codes_1KF[None], [None]).audio_values
        else:
            values = self._model.decode(audio_codes=codes_1KF).audio_values
        return _channels_last(values, self.form.num_channels)


def _sound_of_chunks(model: Any, codes_1KF: Tensor, scales: Sequence[float]) -> NDArray[np.float32]:
    """EnCodec of 48 kHz: chunks of a second that overlap, each made as loud as it was."""
    size = -(-model.config.chunk_length // model.config.hop_length)
    chunks = list(torch.split(codes_1KF, size, dim=-1))
    missing = size - chunks[-1].shape[-1]
    chunks[-1] = torch.nn.functional.pad(chunks[-1], (0, missing))
    loudness: list[Tensor | None] = [torch.tensor([[scale]], device=codes_1KF.device) for scale in scales]
    values = model.decode(
        torch.stack(chunks), loudness or [None] * len(chunks), last_frame_pad_length=missing
    ).audio_values
    return _channels_last(values, model.config.audio_channels)


def _channels_last(values: Tensor, num_channels: int) -> NDArray[np.float32]:
    result: NDArray[np.float32] = values.reshape(num_channels, -1).T.float().cpu().numpy()
    return result


def load_decoder(path: Path, shape: Shape, device: str) -> CodecDecoder:
    """A codec's decoder from a local folder.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoModel

    model = loaded_whole(AutoModel, path, torch.float32).to(device).eval()
    return CodecDecoder(model, float(MODEL_SAMPLE_RATE / shape.step))
