"""How near a copy is to its original. T samples, F frames, M mel bands.

Sources: Le Roux et al. 2019, arXiv:1811.02508 (SI-SDR); the mel distance is the one that codecs report, in decibels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.recording import to_int16
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import RequestedOutputs
from audiomill.models.checkpoint import check_options, find_checkpoint
from audiomill.models.load import load_speech_model
from audiomill.text.wer import score_pair

NONE = "none"


def recogniser_of(
    wanted: str | None, record: Mapping[str, Any], device: str, options: dict[str, Any]
) -> Recogniser | None:
    """The model that is asked for, or the one that transcribes in the job; None where there is none.

    Raises:
        UsageError: it cannot be found, or does not transcribe.
    """
    name = None if wanted == NONE else wanted or _of_the_job(record)
    if name is None:
        return None
    config = ModelConfig(model=name, device=device)
    checkpoint = find_checkpoint(config, options)
    check_options(checkpoint, name, TranscriptConfig())
    requested = RequestedOutputs(transcripts=TranscriptConfig())
    model = load_speech_model(dataclasses.replace(config, precision="fp32"), requested, options)
    return Recogniser(name, model, checkpoint.family.window_s)


def _of_the_job(record: Mapping[str, Any]) -> str | None:
    """The first model that writes texts: only those have a `task`."""
    names = record["model_name"]
    if isinstance(names, str):
        return names if "task" in record["results"] else None
    return next((name for at, name in enumerate(names) if f"models.{at}.task" in record["results"]), None)


class Recogniser:
    """Hears sound in windows as long as its model takes.

    Args:
        name: as it was given.
        model: ready to use.
        window_s: longest sound that it reads at once; None: any.
    """

    def __init__(self, name: str, model: Any, window_s: float | None) -> None:
        self.name, self._model, self._window_s = name, model, window_s

    def compared(
        self, segment: Mapping[str, Any], original_T: NDArray[np.float32], copy_T: NDArray[np.float32], rate: int
    ) -> dict[str, Any]:
        """Columns of the quality table: both are heard in the same way."""
        original, again = (self._text(each, rate, segment["language"]) for each in (original_T, copy_T))
        words, _ = score_pair(original, again, segment["language"])
        return {"text": original, "copy_text": again, "wer": words.rate if words.num_reference else None}

    def _text(self, wave_T: NDArray[np.float32], rate: int, language: str | None) -> str:
        pcm = to_int16(soxr.resample(wave_T, rate, MODEL_SAMPLE_RATE, quality="HQ"))
        size = len(pcm) if self._window_s is None else int(self._window_s * MODEL_SAMPLE_RATE)
        windows = [pcm[first : first + size] for first in range(0, max(1, len(pcm)), max(1, size))]
        given = [Segment(window, 0, 0, ("copy", None), 0, language) for window in windows]
        answers = [answer for each in given for answer in self._model.forward([each])]
        texts = self._model.transcripts(given, [answer.text for answer in answers])
        return " ".join(text.text for text in texts if text.text)


NUM_MELS, FLOOR = 80, 1e-5
WINDOW_S, HOP_S = 0.04, 0.01
MOST_DB = 100.0
"""Of two sounds that are equal."""


def si_sdr_db(original_T: NDArray[np.float32], copy_T: NDArray[np.float32]) -> float | None:
    """Scale-invariant ratio of signal to distortion, in decibels, between -100 and 100; None where one of them is silent."""
    original, copy = (each.astype(np.float64) - each.mean(dtype=np.float64) for each in (original_T, copy_T))
    power = float(original @ original)
    if not power or not float(copy @ copy):
        return None
    target = (float(original @ copy) / power) * original
    signal_power, lost = float(target @ target), float(np.square(copy - target).sum())
    if not signal_power or not lost:
        return MOST_DB if signal_power else -MOST_DB
    return float(np.clip(10 * np.log10(signal_power / lost), -MOST_DB, MOST_DB))


def mel_distance_db(original_T: NDArray[np.float32], copy_T: NDArray[np.float32], rate: int) -> float:
    """Mean absolute difference of log-mel spectrograms."""
    first, second = (_log_mel_db(each, rate) for each in (original_T, copy_T))
    return float(np.abs(first - second).mean())


def _log_mel_db(wave_T: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    size = round(WINDOW_S * rate)
    padded = np.pad(wave_T, (0, max(0, size - len(wave_T))))
    filters = mel_filter_bank(size // 2 + 1, NUM_MELS, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    result: NDArray[np.float64] = spectrogram(
        padded, window_function(size, "hann"), size, round(HOP_S * rate), power=1.0, mel_filters=filters,
        mel_floor=FLOOR,
    )  # fmt: skip
    return 20 * np.log10(result)
