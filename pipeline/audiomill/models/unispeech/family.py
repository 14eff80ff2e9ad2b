"""UniSpeech and UniSpeech-SAT: built like wav2vec 2.0, trained otherwise (arXiv:2101.07597, arXiv:2110.05752)."""

from __future__ import annotations

from audiomill.models.family import Facts
from audiomill.models.frames.frame_families import ALONE, OFFERS
from audiomill.models.frames.wav2vec2_families import relatives

FAMILY = relatives(
    "unispeech",
    "UniSpeech, UniSpeech-SAT",
    ("unispeech", "unispeech-sat"),
    Facts(
        examples=("microsoft/unispeech-large-1500h-cv", "microsoft/unispeech-sat-base-plus"),
        offers=OFFERS,
        exact=ALONE,
        licence="MIT",
    ),
)
