"""Whisper's special tokens, by their names in a checkpoint's tokenizer.

Source: Radford et al. 2022, arXiv:2212.04356.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from audiomill.models.seq2seq.special_tokens import SpecialTokens
from audiomill.text.scripts import base_language

TIMESTAMP_STEP_S = 0.02
MAX_PROMPT_TOKENS = 223
"""Half of the decoder's positions, less the token that says what they are."""
ENGLISH_ONLY_SIZE = 51_864
"""Vocabulary of the .en checkpoints: their tokenizers list languages too, but the models do not know them."""
BEFORE = "<|startofprev|>"
"""Precedes text that is said to come before."""


@cache
def names_of_languages() -> dict[str, str]:
    """Code by English name, as manifests of other programs have it."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return dict(TO_LANGUAGE_CODE)


@dataclass(frozen=True, kw_only=True)
class WhisperTokens(SpecialTokens):
    """Ids of one checkpoint's special tokens. `languages`: code -> id, empty for English-only models."""

    transcribe: int
    translate: int
    no_timestamps: int
    languages: dict[str, int]
    _language_of: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_language_of", {token: code for code, token in self.languages.items()})

    def language_of(self, token: int) -> str:
        return self._language_of[token]

    def code(self, language: str | None) -> str | None:
        """A language as the model names it: `sv-SE` and `Swedish` are `sv`; None where it does not know it."""
        named = names_of_languages().get((language or "").strip().lower(), "")
        return next((each for each in (language or "", base_language(language), named) if each in self.languages), None)

    def prompt(self, language: int | None, task: str, timestamps: bool) -> list[int]:
        """Tokens that the decoder is started with; `language` is None for English-only models."""
        tokens = [self.start]
        if language is not None:
            tokens += [language, self.translate if task == "translate" else self.transcribe]
        return tokens if timestamps else [*tokens, self.no_timestamps]


def numeral_tokens(tokenizer: Any, end: int) -> list[int]:
    """Text tokens with a digit or a currency or percent sign in them."""
    texts = tokenizer.decode_batch([[token] for token in range(end)])
    return [token for token, text in enumerate(texts) if any(c.isdigit() or c in "%$£€" for c in text)]


def whisper_prompt_tokens(tokenizer: Any, text: str) -> list[int]:
    """Tokens that say that `text` came before: the last ones, if there are too many."""
    ids = tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
    return [tokenizer.token_to_id(BEFORE), *ids[-MAX_PROMPT_TOKENS:]]


def tokens_of(tokenizer: Any, vocabulary_size: int, generation: dict[str, Any]) -> WhisperTokens:
    """Special tokens by their names in the tokenizer.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        vocabulary_size: rows of the output projection.
        generation: `suppress_tokens` and `begin_suppress_tokens` of the checkpoint.
    """
    number = tokenizer.token_to_id
    no_timestamps = number("<|notimestamps|>")
    start, translate = number("<|startoftranscript|>"), number("<|translate|>")
    is_multilingual = vocabulary_size != ENGLISH_ONLY_SIZE
    names = {token: name for name, token in tokenizer.get_vocab(with_added_tokens=True).items()}
    languages = (
        {names[token][2:-2]: token for token in range(start + 1, translate) if token in names}
        if is_multilingual
        else {}
    )
    no_speech = number("<|nospeech|>")
    return WhisperTokens(
        size=vocabulary_size,
        start=start,
        end=number("<|endoftext|>"),
        transcribe=number("<|transcribe|>"),
        translate=translate,
        no_speech=no_speech if no_speech is not None else no_timestamps - 1,
        no_timestamps=no_timestamps,
        first_timestamp=no_timestamps + 1,
        languages=languages,
        suppress=tuple(generation.get("suppress_tokens") or ()),
        begin_suppress=tuple(generation.get("begin_suppress_tokens") or ()),
    )
