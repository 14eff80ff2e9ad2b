"""The quality table: how each segment sounds. Scores are shown; nothing is left out because of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from audiomill.audio.sound_measures import Signal, measured
from audiomill.models.base import Prediction, Utterance
from audiomill.schema import column
from audiomill.tables.output import segment_id

TAG = pa.struct([("label", pa.string()), ("probability", pa.float32())])
MOS = "mean opinion score by DNSMOS; null: left out by --no-dnsmos"
QUALITY = pa.schema(
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
_BYTES_PER_SECOND = 6.0


def quality_rows(
    cuts: Sequence[Mapping[str, Any]],
    utterances: Sequence[Utterance],
    tags: Sequence[Prediction] | None,
    with_dnsmos: bool,
) -> pa.Table:
    """A row a segment.

    Args:
        cuts: the segments.
        utterances: the same, with their voice activity marked.
        tags: what a tagger answered, None without one.
        with_dnsmos: whether networks judge, too.
    """
    rows = []
    for number, (cut, utterance) in enumerate(zip(cuts, utterances, strict=True)):
        assert utterance.vad_mask is not None, "voice activity was marked"
        left, stop = utterance.left, len(utterance.pcm_T) - utterance.right
        pcm_T = utterance.pcm_T[left:stop]
        named = {"segment_id": segment_id(cut), "recording_id": cut["recording_id"]}
        # Marks count from the first sample of the context; a part of a frame is nearly always the same as the whole.
        signal: Signal = measured(pcm_T, utterance.vad_mask[left // 512 :])
        tag_rows = None if tags is None else [{"label": a, "probability": p} for a, p in tags[number].readout.tags]
        rows.append({**named, **asdict(signal), **_opinion(pcm_T, with_dnsmos), "tags": tag_rows})
    return pa.Table.from_pylist(rows, schema=QUALITY)


def _opinion(pcm_T: Any, with_dnsmos: bool) -> dict[str, float | None]:
    names = ("dnsmos_signal", "dnsmos_background", "dnsmos_overall", "dnsmos_p808")
    if not with_dnsmos:
        return dict.fromkeys(names)
    from audiomill.models.sound_quality.dnsmos import opinion

    return dict(zip(names, opinion(pcm_T), strict=True))
