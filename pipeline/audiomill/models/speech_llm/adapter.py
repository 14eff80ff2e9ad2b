"""LoRA weights of a language model, by peft (arXiv:2106.09685)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from audiomill.errors import ModelError
from audiomill.models.causal.language_model import LanguageModel
from audiomill.models.speech_llm.settings import ADAPTER

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALPHA_PER_RANK = 2


def new_adapter(lm: LanguageModel, rank: int) -> LanguageModel:
    """A language model with new LoRA weights, which change nothing yet."""
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    return _wrapped(lm, peft.get_peft_model(lm.model, config))


def with_adapter(lm: LanguageModel, folder: Path, keeps_apart: bool) -> LanguageModel:
    """A language model with the LoRA weights of a checkpoint, added to its own or apart, to learn on.

    Raises:
        ModelError: they are missing or do not fit.
    """
    peft, place = _peft(), folder / ADAPTER
    if not (place / "adapter_model.safetensors").is_file():
        raise ModelError(f"{place}: no adapter_model.safetensors; expected the LoRA weights that config.json tells of")
    try:
        result = peft.PeftModel.from_pretrained(lm.model, str(place), is_trainable=keeps_apart)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{place}: LoRA weights that do not fit the language model {lm.name} ({reason})") from error
    if keeps_apart:
        return _wrapped(lm, result)
    merged = result.merge_and_unload()
    return dataclasses.replace(lm, model=merged, body=merged.model, head=merged.lm_head)


def _wrapped(lm: LanguageModel, model: Any) -> LanguageModel:
    """Layers are changed in place; `model` knows which weights are LoRA's."""
    inner = model.get_base_model()
    return dataclasses.replace(lm, model=model, body=inner.model, head=inner.lm_head)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ModelError("LoRA weights need peft: pip install 'audiomill[lora]'") from error
    return peft
