"""What a language model reads around the audio."""

from __future__ import annotations

from typing import Any

from audiomill.models.causal.language_model import on_a_fixed_day
from audiomill.models.speech_llm.settings import AUDIO, DEFAULT_PROMPT, DEFAULT_REQUEST


def prompt_for(tokenizer: Any) -> str:
    """The prompt of a language model that nobody gave one: by its chat template, where it has one."""
    if not getattr(tokenizer, "chat_template", None):
        return DEFAULT_PROMPT
    chat = [{"role": "user", "content": DEFAULT_REQUEST}]
    with on_a_fixed_day():
        prompt: str = tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    return prompt


def prompt_tokens(tokenizer: Any, prompt: str) -> tuple[list[int], list[int]]:
    """Tokens before and behind the audio. A chat template writes its own first token."""
    before, after = prompt.split(AUDIO)
    has_first = tokenizer.bos_token is not None and not prompt.startswith(tokenizer.bos_token)
    first = [tokenizer.bos_token_id] if has_first and _adds_first(tokenizer) else []
    plain = [tokenizer(each, add_special_tokens=False).input_ids for each in (before, after)]
    return [*first, *plain[0]], plain[1]


def _adds_first(tokenizer: Any) -> bool:
    return bool(tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id])
