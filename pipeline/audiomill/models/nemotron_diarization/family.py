"""Nemotron 3 Diarization, as transformers reads it: eight speakers, in the order in which they come."""

from __future__ import annotations

from audiomill.models.family import Facts, Late, of_type
from audiomill.models.speakers.diarizer_family import frame_classifier

_HOP = 160


FAMILY = frame_classifier(
    "nemotron_diarization",
    "Nemotron 3 Diarization",
    of_type("nemotron3_diarization"),
    _HOP,
    Late("audiomill.models.nemotron_diarization.nemotron:load_nemotron"),
    Facts(
        examples=("nvidia/Nemotron-3-Diarization",),
        offers="turns, for --speakers: who speaks in a segment; voices tell who is who across segments",
        exact="windows of one length go together; frames are those of transformers alone (a test compares)",
        licence="the checkpoint's own",
        transformers=(5, 24),
    ),
)
