"""How Qwen3-ASR is asked, and how its answer is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from audiomill.models.causal.hf_speech_llm import Layout, Wave, audio_features, encoding_tensors

MARK = "<asr_text>"
"""Between the language and the text."""
_NAMED = "language "


def _request(processor: Any, wave: Wave, language: str | None) -> Mapping[str, Tensor]:
    return encoding_tensors(processor.apply_transcription_request(wave, language=language, return_tensors="pt"))


def _parse_reply(text: str) -> tuple[str, str | None]:
    """`language English<asr_text>hello` -> `hello`, `en`; without the mark all is text, as where the language was told."""
    from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

    before, mark, written = text.partition(MARK)
    if not mark:
        return text, None
    codes = {name.lower(): code for code, name in LANGUAGE_CODE_TO_NAME.items()}
    return written, codes.get(before.strip().removeprefix(_NAMED).strip().lower())


def languages() -> frozenset[str]:
    """Codes that it may be told."""
    from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

    return frozenset(LANGUAGE_CODE_TO_NAME)


QWEN3_LAYOUT = Layout(
    languages=languages,
    kind="Qwen3ASRForConditionalGeneration",
    request=_request,
    audio_features=audio_features,
    parse_reply=_parse_reply,
)
