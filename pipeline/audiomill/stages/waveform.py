"""A stretch of one recording as samples, by the decode process: for pages and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.recording import Cut
from audiomill.errors import RecordingRejected
from audiomill.stages.sandbox import Decoder


def waveform_of(
    decoder: Decoder, planned: Mapping[str, Any], start_s: float | None, seconds: float, channel: int | None
) -> NDArray[np.int16]:
    """pcm_T at 16 kHz of `seconds` from `start_s` on.

    Args:
        decoder: with rules that keep everything, see `audio.cutting.segment.whole_spec`.
        planned: a row of `schema.PLAN`.
        start_s: in the source; None: from its start.
        seconds: fewer where the recording ends.
        channel: of the source; None: as the decoder mixes.

    Raises:
        RecordingRejected: the recording cannot be used, or has no audio there.
    """
    row = {**planned, "span_start_s": start_s, "span_duration_s": seconds, "sidecars": None}
    cuts = [event for event in decoder.read(row) if isinstance(event, Cut)]
    mine = [cut.pcm_T for cut in cuts if cut.channel == (planned["channel"] if channel is None else channel)]
    if not mine:
        raise RecordingRejected("read", "no_samples", "the recording has no audio there any more")
    return np.concatenate(mine)
