"""Canary-1B-v2: 25 languages, and from them into English."""

from __future__ import annotations

from pathlib import Path

from audiomill.config.defaults import WINDOWS_BATCH_S
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.family import (
    CODES,
    PUNCTUATION,
    TEXT,
    TRANSLATION,
    VECTORS,
    Facts,
    Family,
    Late,
    always,
    check_plain,
    of_type,
)
from audiomill.models.fastconformer.frame_clock import fastconformer_shape
from audiomill.models.frames.frame_families import PRECISIONS
from audiomill.models.nemo_canary.trained_languages import LANGUAGES

_WINDOW_S = 40.0
"""What it was trained on; beyond that its texts break off."""


def _check(path: Path, model: str, text: TranscriptConfig) -> None:
    check_plain(model, text)
    known = ", ".join(sorted(LANGUAGES))
    if text.language is None:
        raise ModelError(
            f"{model}: does not tell languages apart, and writes one as another if told wrongly: add --language, one of {known}"
        )
    if text.language not in LANGUAGES:
        raise ModelError(f"--language {text.language}: {model} knows {known}")


FAMILY = Family(
    name="nemo_canary",
    checkpoints="Canary-1B-v2 (the folder of transformers, not the .nemo file)",
    facts=Facts(
        examples=("nvidia/canary-1b-v2",),
        offers="text in 25 languages, translation into English, with or without punctuation, retries, vectors, codes; word times "
        "with a CTC model beside it",
        exact="tokens are those of `generate` alone (a test compares)",
        licence="CC-BY-4.0",
        transformers=(5, 24),
    ),
    recognises=of_type("canary"),
    gives=always(TEXT, TRANSLATION, PUNCTUATION, VECTORS, CODES),
    shape=fastconformer_shape,
    check=_check,
    load=Late("audiomill.models.nemo_canary.canary_loading:load_canary"),
    window_s=_WINDOW_S,
    reads_alone=True,
    batch_seconds=WINDOWS_BATCH_S,
    precisions=PRECISIONS,
    reads_log_mel=True,
)
