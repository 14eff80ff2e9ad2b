"""Voxtral: eight languages, told or found by itself. Its tokenizer is that of mistral-common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.base import SpeechModel
from audiomill.models.causal.hf_speech_llm_family import hf_speech_llm_facts, hf_speech_llm_family
from audiomill.models.family import Loading

_NEEDS = "mistral-common[audio]"


_LANGUAGES = frozenset(("en", "es", "fr", "pt", "hi", "de", "nl", "it"))


def _languages() -> frozenset[str]:
    return _LANGUAGES


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.causal.hf_speech_llm import Layout, Wave, audio_features, encoding_tensors, load_hf_speech_llm

    def request(processor: Any, wave: Wave, language: str | None) -> Mapping[str, Any]:
        asked = {
            "language": language,
            "sampling_rate": MODEL_SAMPLE_RATE,
            "format": ["wav"],
            "model_id": "",
            "return_tensors": "pt",
        }
        return encoding_tensors(processor.apply_transcription_request(audio=[wave], **asked))

    return load_hf_speech_llm(
        loading,
        Layout(
            kind="VoxtralForConditionalGeneration",
            request=request,
            audio_features=audio_features,
            languages=_languages,
            needs=_NEEDS,
        ),
    )


FAMILY = hf_speech_llm_family(
    "voxtral",
    "Voxtral",
    "voxtral",
    12.5,
    _load,
    hf_speech_llm_facts(("mistralai/Voxtral-Mini-3B-2507", "mistralai/Voxtral-Small-24B-2507"), "Apache-2.0"),
    _languages,
)
