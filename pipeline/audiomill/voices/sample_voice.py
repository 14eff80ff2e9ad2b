"""The voice in a recording of one person, by the model that an output's speakers were told with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.cutting.segmenter import whole_spec
from audiomill.config.stages import DecodeConfig
from audiomill.errors import InputError, RecordingRejected, UsageError
from audiomill.models.speakers.diarizer_family import embedder_of
from audiomill.sources.listing import list_inputs
from audiomill.stages.plan import planned_table
from audiomill.stages.sandbox import Decoder, waveform_of
from audiomill.storage import ledger
from audiomill.storage.fs import Place

_LONGEST_S = 120.0


def voice_vector(output: Place, clip: str) -> NDArray[np.float32]:
    """vector_D of a file.

    Args:
        output: with a speakers table.
        clip: path or URL of the recording.

    Raises:
        UsageError: the clip is not one recording that can be read.
        InputError: the output does not say which model made its vectors.
    """
    models = {row["model"] for row in _rows(output) if row["model"] is not None}
    if not models:
        raise InputError(f"{output.url}: its channels are speakers; voices need --speakers auto")
    listing = list_inputs((clip,), output.options, None, output.url)
    entries = listing.entries
    if len(entries) != 1:
        raise UsageError(f"--name: {clip}: expected one recording of the person alone, found {len(entries)}")
    (planned,) = planned_table(entries, [None], first_part=0, part_seconds=_LONGEST_S).to_pylist()
    decoder = Decoder(DecodeConfig(), whole_spec(_LONGEST_S + 1.0), listing.options(output.options))
    try:
        pcm_T = waveform_of(decoder, planned, None, _LONGEST_S, None)
    except RecordingRejected as rejected:
        raise UsageError(f"--name: {clip}: {rejected.reason}: {rejected.detail}") from rejected
    finally:
        decoder.close()
    vector: NDArray[np.float32] = embedder_of(sorted(models)[0], "cpu", output.options).vectors([pcm_T])[0]
    return vector


def _rows(output: Place) -> list[dict[str, Any]]:
    return [row for _, rows in ledger.each_part(output, "speakers", ["model"]) for row in rows.to_pylist()]
