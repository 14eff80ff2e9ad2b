"""The sound that codes were made of, in the form of a codec: read again from its source."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import Form
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.segmenter import whole_spec
from audiomill.config.stages import DecodeConfig
from audiomill.errors import RecordingRejected
from audiomill.stages.sandbox import Decoder
from audiomill.storage import ledger
from audiomill.storage.fs import Place

_LONGEST_S = 4 * 3600.0
"""Of a segment."""


class Originals:
    """Segments of an output as sound, by a decode process of its own.

    Args:
        output: of a run.
        form: rate and channels.
        storage_options: fsspec options.
    """

    def __init__(self, output: Place, form: Form, storage_options: dict[str, Any]) -> None:
        results = json.loads(output.join("run.json").read())["results"]
        decode = DecodeConfig(channels=results.get("channels", "mix"))
        self._decoder = Decoder(decode, dataclasses.replace(whole_spec(_LONGEST_S), forms=(form,)), storage_options)
        plan = ledger.load_plan(output)
        assert plan is not None, "there are finished parts"
        self._planned = {row["id"]: row for row in plan.to_pylist()}

    def close(self) -> None:
        self._decoder.close()

    def sound(self, segment: Mapping[str, Any]) -> NDArray[np.float32]:
        """wave_TK of a row of the segments table.

        Raises:
            RecordingRejected: its recording cannot be read any more.
        """
        planned = self._planned[segment["recording_id"]]
        span = {"span_start_s": segment["start_s"], "span_duration_s": segment["stop_s"] - segment["start_s"]}
        events = list(self._decoder.read({**planned, **span, "sidecars": None}))
        segments = [event for event in events if isinstance(event, Segment)]
        mine = [each.wave_TK for each in segments if each.channel == segment["channel"]]
        if not mine:
            raise RecordingRejected("read", "no_samples", "the recording has no audio there any more")
        return np.concatenate(mine)
