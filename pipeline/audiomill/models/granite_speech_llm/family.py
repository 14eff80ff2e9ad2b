"""Granite Speech with a language model behind it."""

from __future__ import annotations

from audiomill.models.base import SpeechModel
from audiomill.models.causal.hf_speech_llm_family import hf_speech_llm_facts, hf_speech_llm_family
from audiomill.models.family import Loading


def _load(loading: Loading) -> SpeechModel:
    from audiomill.models.causal.hf_speech_llm import load_hf_speech_llm
    from audiomill.models.granite_speech_llm.granite_request import GRANITE_LAYOUT

    return load_hf_speech_llm(loading, GRANITE_LAYOUT)


FAMILY = hf_speech_llm_family(
    "granite_speech_llm",
    "Granite Speech 3.3 and 4",
    "granite_speech",
    10.0,
    _load,
    hf_speech_llm_facts(("ibm-granite/granite-speech-3.3-2b", "ibm-granite/granite-4.0-1b-speech"), "Apache-2.0"),
)
