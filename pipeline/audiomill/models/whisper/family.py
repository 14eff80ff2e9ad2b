"""Whisper, from Hugging Face and CTranslate2 folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiomill.config.defaults import SPEECH_SEGMENT_S, WINDOW_S, WINDOWS_BATCH_S
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.family import BEAMS, CODES, TEXT, TRANSLATION, VECTORS, Facts, Family, Late, Objective
from audiomill.models.task import Shape
from audiomill.models.whisper import ctranslate2
from audiomill.models.whisper.folder import vocabulary_size, whisper_shape
from audiomill.storage.content_cache import once_per_content
from audiomill.text.repetition import num_repeats
from audiomill.text.scripts import units

ENGLISH_VOCABULARY = 51_864
"""Tokens of the English-only checkpoints; the others have more."""


def _recognises(path: Path, settings: Mapping[str, Any]) -> bool:
    return settings.get("model_type") == "whisper" or ctranslate2.is_ctranslate2(path)


def _provides(path: Path, settings: Mapping[str, Any]) -> frozenset[str]:
    try:
        is_english = vocabulary_size(path) == ENGLISH_VOCABULARY
    except ModelError:  # what is missing is told where it is needed
        is_english = False
    return frozenset((TEXT, BEAMS, VECTORS, CODES, *(() if is_english else (TRANSLATION,))))


def _shape(path: Path) -> Shape:
    return ctranslate2.ctranslate2_shape(path) if ctranslate2.is_ctranslate2(path) else whisper_shape(path)


def _check(path: Path, model: str, text: TranscriptConfig) -> None:
    if text.prompt and num_repeats(units(text.prompt.lower())) > MOST_REPEATS:
        raise ModelError(
            f"--prompt: says the same more than {MOST_REPEATS} times in a row, which makes Whisper go on with it; say it once"
        )
    languages = _languages(path)
    if text.task == "translate" and not languages:
        raise ModelError(f"--task translate: {model} is an English-only checkpoint; use a multilingual one")
    for code in [text.language, *(text.languages or "").split(",")]:
        code = (code or "").strip()
        if code and languages and code not in languages:
            raise ModelError(f"--language {code}: {model} knows {', '.join(sorted(languages))}")
        if code and not languages and code != "en":
            raise ModelError(f"--language {code}: {model} is an English-only checkpoint; use a multilingual one")


@once_per_content
def _languages(path: Path) -> frozenset[str]:
    from audiomill.models.whisper.folder import tokenizer_of
    from audiomill.models.whisper.tokens import tokens_of

    return frozenset(tokens_of(tokenizer_of(path), vocabulary_size(path), {}).languages)


def _only_language(path: Path) -> str | None:
    return "English" if vocabulary_size(path) == ENGLISH_VOCABULARY else None


MOST_REPEATS = 3
"""Of words in a prompt."""
FAMILY = Family(
    name="whisper",
    checkpoints="Whisper (Hugging Face or CTranslate2 folders)",
    facts=Facts(
        examples=(
            "openai/whisper-tiny.en",
            "openai/whisper-large-v3",
            "distil-whisper/distil-large-v3",
            "Systran/faster-whisper-base",
        ),
        offers="text, word times, beam search, translation, prompts, retries, encoder vectors, codes; can be trained",
        exact="tokens are those of `generate` alone in fp32; in int8 a row has the same bits in any batch (tests compare)",
        licence="MIT; the checkpoint's own where others trained it",
    ),
    recognises=_recognises,
    gives=_provides,
    shape=_shape,
    check=_check,
    load=Late("audiomill.models.whisper.loading:load_whisper_task"),
    window_s=WINDOW_S,
    reads_alone=True,
    speech_segment_s=SPEECH_SEGMENT_S,
    batch_seconds=WINDOWS_BATCH_S,
    precisions={"cpu": ("fp32", "bf16", "int8"), "cuda": ("fp16", "bf16", "fp32")},
    prefers_int8=True,
    vocabulary_size=vocabulary_size,
    only_language=_only_language,
    times_words=True,
    reads_log_mel=True,
    learners={"whisper": Objective(load=Late("audiomill.models.whisper.learner:load_whisper_learner"))},
)
