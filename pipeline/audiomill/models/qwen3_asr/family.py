"""Qwen3-ASR: 30 languages, told or found by itself."""

from __future__ import annotations

from audiomill.models.base import SpeechModel
from audiomill.models.causal.hf_speech_llm_family import hf_speech_llm_facts, hf_speech_llm_family
from audiomill.models.family import Late, Loading


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.causal.hf_speech_llm import load_hf_speech_llm
    from audiomill.models.qwen3_asr.qwen3_request import QWEN3_LAYOUT

    return load_hf_speech_llm(loading, QWEN3_LAYOUT)


FAMILY = hf_speech_llm_family(
    "qwen3_asr",
    "Qwen3-ASR (the folder of transformers)",
    "qwen3_asr",
    13.0,
    _load,
    hf_speech_llm_facts(("Qwen/Qwen3-ASR-0.6B-hf", "Qwen/Qwen3-ASR-1.7B-hf"), "Apache-2.0"),
    Late("audiomill.models.qwen3_asr.qwen3_request:languages"),
)
