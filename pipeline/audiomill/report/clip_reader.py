"""Stretches of recordings as sound and outline, for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segmenter import whole_spec
from audiomill.config.stages import DecodeConfig
from audiomill.errors import RecordingRejected
from audiomill.stages.sandbox import Decoder, waveform_of
from audiomill.watch.journal import redacted

NUM_LEVELS = 240


class _Sound(NamedTuple):
    """`audio`: a FLAC data URI, exact to the sample; `levels`: of the waveform, 0 to 1; `seconds`: its length; `missing`:
    why there is none."""

    audio: str | None
    levels: tuple[float, ...] = ()
    seconds: float = 0.0
    missing: str | None = None


class ClipReader:
    """Reads stretches of recordings, in a decode process of its own.

    Args:
        channels: how the run took channels: mix, split or first.
        max_seconds: longer stretches are cut there.
        storage_options: fsspec options.
    """

    def __init__(self, channels: str, max_seconds: float, storage_options: dict[str, Any]) -> None:
        self._max_seconds = max_seconds
        self._decoder = Decoder(DecodeConfig(channels=channels), whole_spec(max_seconds + 1.0), storage_options)

    def close(self) -> None:
        self._decoder.close()

    def samples(
        self, planned: Mapping[str, Any], start_s: float, stop_s: float, channel: int | None
    ) -> NDArray[np.int16]:
        """pcm_T of a stretch of a planned recording; times in its source.

        Raises:
            RecordingRejected: it cannot be read, or has no audio there.
        """
        return waveform_of(self._decoder, planned, start_s, min(stop_s - start_s, self._max_seconds), channel)

    def hear(self, planned: Mapping[str, Any], start_s: float, stop_s: float, channel: int | None) -> _Sound:
        """A stretch of a planned recording; times in its source."""
        try:
            pcm_T = self.samples(planned, start_s, stop_s, channel)
        except RecordingRejected as rejected:
            return _Sound(None, missing=redacted(f"{rejected.reason}: {rejected.detail}"))
        return _Sound(flac_uri(pcm_T), levels(pcm_T), len(pcm_T) / MODEL_SAMPLE_RATE)


def flac_uri(pcm_T: NDArray[np.int16]) -> str:
    """Samples as a data URI that every browser plays."""
    sink = io.BytesIO()
    soundfile.write(sink, pcm_T, MODEL_SAMPLE_RATE, format="FLAC")
    return data_uri(sink.getvalue())


def data_uri(flac: bytes) -> str:
    """A FLAC file inside a page."""
    return "data:audio/flac;base64," + base64.b64encode(flac).decode()


def levels(pcm_T: NDArray[np.int16]) -> tuple[float, ...]:
    """Peaks of equal stretches, the loudest 1."""
    group = max(1, -(-len(pcm_T) // NUM_LEVELS))
    peak_N = np.pad(np.abs(pcm_T.astype(np.int32)), (0, -len(pcm_T) % group)).reshape(-1, group).max(axis=1)
    return tuple(np.round(peak_N / max(1, peak_N.max()), 3).tolist())
