"""The quality table: how each segment sounds. Scores are shown; nothing is left out because of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from audiomill.audio.sound_measures import measured
from audiomill.audio.vad import FRAME_SAMPLES
from audiomill.config.jobs import JobConfig
from audiomill.models.batch import Batch
from audiomill.schema import column
from audiomill.tables.output import ModelRequest, Output, OutputRun

TAG = pa.struct([("label", pa.string()), ("probability", pa.float32())])
MOS = "mean opinion score by DNSMOS; null: left out by --no-dnsmos"
_SCHEMA = pa.schema(
    [
        column("segment_id", pa.string(), "joins segments.id"),
        column("recording_id", pa.string(), "joins recordings.id"),
        column("snr_db", pa.float32(), "speech to noise, by voice activity; null: no speech", "dB", True),
        column("clipped_share", pa.float32(), "of the samples, in runs at full scale", "0..1"),
        column(
            "bandwidth_hz", pa.float32(), "highest frequency with sound, 8000 at most; half the true sample rate", "Hz"
        ),
        column("loudness_lufs", pa.float32(), "integrated, ITU-R BS.1770; null: under 0.4 s, or silence", "LUFS", True),
        column("silence_share", pa.float32(), "of the segment, without voice activity", "0..1"),
        column("dnsmos_signal", pa.float32(), f"speech, P.835: {MOS}", "1..5", True),
        column("dnsmos_background", pa.float32(), f"background, P.835: {MOS}", "1..5", True),
        column("dnsmos_overall", pa.float32(), f"overall, P.835: {MOS}", "1..5", True),
        column("dnsmos_p808", pa.float32(), f"P.808: {MOS}", "1..5", True),
        column(
            "tags",
            pa.list_(TAG),
            "most probable sounds by --tagger, the likeliest first; null: no tagger",
            nullable=True,
        ),
    ]
)


def _resolve_run(job: JobConfig, asked: Sequence[ModelRequest]) -> OutputRun | None:
    """`options`: whether networks judge, too."""
    return OutputRun(_SCHEMA, options=job.quality.dnsmos) if job.quality.quality else None


def _rows(batch: Batch, run: OutputRun) -> pa.Table:
    """A row a segment."""
    tagger = next((number for number, spec in enumerate(batch.specs) if spec.requested.tags), None)
    rows = []
    for each in batch.stored:
        segment = each.segment
        assert segment.vad_mask is not None, "voice activity was marked"
        named = {"segment_id": segment.id, "recording_id": segment.recording_id}
        # Marks count from the first sample of the context; a part of a frame is nearly always the same as the whole.
        pcm_T, vad_mask = segment.core.pcm_T, segment.vad_mask[segment.left // FRAME_SAMPLES :]
        tags = None if tagger is None else each.predictions[tagger].readout.tags
        tag_rows = None if tags is None else [{"label": label, "probability": p} for label, p in tags]
        rows.append({**named, **asdict(measured(pcm_T, vad_mask)), **_opinion(pcm_T, run.options), "tags": tag_rows})
    return pa.Table.from_pylist(rows, schema=run.schema)


def _opinion(pcm_T: Any, with_dnsmos: bool) -> dict[str, float | None]:
    names = ("dnsmos_signal", "dnsmos_background", "dnsmos_overall", "dnsmos_p808")
    if not with_dnsmos:
        return dict.fromkeys(names)
    from audiomill.models.sound_quality.dnsmos import opinion

    return dict(zip(names, opinion(pcm_T), strict=True))


QUALITY = Output(name="quality", documented={"quality": _SCHEMA}, resolve_run=_resolve_run, rows=_rows)
