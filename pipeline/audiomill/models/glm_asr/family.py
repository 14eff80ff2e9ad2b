"""GLM-ASR: Mandarin, Cantonese and English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audiomill.models.base import SpeechModel
from audiomill.models.causal.hf_speech_llm_family import hf_speech_llm_facts, hf_speech_llm_family
from audiomill.models.family import Loading


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.causal.hf_speech_llm import Layout, Wave, audio_features, encoding_tensors, load_hf_speech_llm

    def request(processor: Any, wave: Wave, language: str | None) -> Mapping[str, Any]:
        return encoding_tensors(processor.apply_transcription_request(wave))

    return load_hf_speech_llm(
        loading, Layout(kind="GlmAsrForConditionalGeneration", request=request, audio_features=audio_features)
    )


FAMILY = hf_speech_llm_family(
    "glm_asr",
    "GLM-ASR",
    "glmasr",
    12.5,
    _load,
    hf_speech_llm_facts(("zai-org/GLM-ASR-Nano-2512",), "MIT"),
)
