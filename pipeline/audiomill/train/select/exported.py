"""Kept segments as files of their own, for tools that cannot read the members of a shard or the middle of a recording."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.stages import DecodeConfig, PlanConfig
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute
from audiomill.train.clips import Source, prepare
from audiomill.train.pseudo import span_of

_MAX_CLIP_S = 3600.0


def export_clips(rows: Sequence[dict[str, Any]], output: Place) -> list[dict[str, Any]]:
    """Writes OUTPUT/audio/ID.flac (16 kHz, one channel) for each row.

    Args:
        rows: as in `selection.SELECTED`.
        output: of the selection.

    Returns:
        The rows with the files as their sources.
    """
    spans = tuple((span_of(row), row["channel"]) for row in rows)
    source = Source(role="export", inputs=(), needs_text=False, spans=spans)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        plan = PlanConfig(storage_options=output.options)
        clips = prepare([source], Path(folder), DecodeConfig(), plan, _MAX_CLIP_S, 0.0)[0]["export"]
        by_name = {name: number for number, name in enumerate(clips.table.column("id").to_pylist())}
        for row, (entry, _) in zip(rows, spans, strict=True):
            if entry.id not in by_name:
                continue
            sink = io.BytesIO()
            soundfile.write(sink, clips.pcm(by_name[entry.id]), MODEL_SAMPLE_RATE, format="FLAC")
            place = output.join("audio", f"{row['id']}.flac")
            place.write(sink.getvalue())
            results.append({**row, "source": absolute(place.url), "member": "", "offset": 0.0, "channel": None})
    return results
