"""How far the parts are that are being worked on."""

from __future__ import annotations

import json
from typing import NamedTuple

from audiomill.stages.heartbeat import SUFFIX
from audiomill.storage.fs import Place


class Inside(NamedTuple):
    """Of the parts that are not in the ledger yet: segments, and seconds of audio that models have heard."""

    segments: int = 0
    segments_done: int = 0
    audio_done_s: float = 0.0


def inside(output: Place) -> Inside:
    """What the workers of a run have written down; nothing where all pieces are quick."""
    result = Inside()
    for name in output.join("_pieces").names():
        if name.endswith(SUFFIX) and not name.startswith("."):
            try:
                values = json.loads(output.join("_pieces", name).read())
            except (FileNotFoundError, ValueError):  # written and gone while we look
                continue
            result = Inside(
                result.segments + values["segments"],
                result.segments_done + values["segments_done"],
                result.audio_done_s + values["audio_done_s"],
            )
    return result
