"""Whisper's special tokens and the rules on which token may follow which, for a whole batch at once.

B batch, V vocabulary.
Source: Radford et al. 2022, arXiv:2212.04356; rules as in openai/whisper decoding.py::ApplyTimestampRules
and Hugging Face's WhisperTimeStampLogitsProcessor, which the tests compare with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

TIMESTAMP_STEP_S = 0.02
MAX_INITIAL_TIMESTAMP = 50
"""The first timestamp is at most this many steps (1 s) into the window."""
NEVER = float("-inf")
MAX_PROMPT_TOKENS = 223
"""Half of the decoder's positions, less the token that says what they are."""
ENGLISH_ONLY_SIZE = 51_864
"""Vocabulary of the .en checkpoints: their tokenizers list languages too, but the models do not know them."""


@dataclass(frozen=True)
class WhisperTokens:
    """Ids of one checkpoint's special tokens. `languages`: code -> id, empty for English-only models."""

    size: int
    start: int
    end: int
    transcribe: int
    translate: int
    no_speech: int
    no_timestamps: int
    languages: dict[str, int]
    suppress: tuple[int, ...]
    begin_suppress: tuple[int, ...]
    max_initial_timestamp: int = MAX_INITIAL_TIMESTAMP
    _language_of: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_language_of", {token: code for code, token in self.languages.items()})

    @property
    def first_timestamp(self) -> int:
        return self.no_timestamps + 1

    def language_of(self, token: int) -> str:
        return self._language_of[token]

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


def prompt_tokens(tokenizer: Any, text: str) -> list[int]:
    """Tokens that say that `text` came before: the last ones, if there are too many."""
    ids = tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
    return [tokenizer.token_to_id("<|startofprev|>"), *ids[-MAX_PROMPT_TOKENS:]]


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
        languages=languages,
        suppress=tuple(generation.get("suppress_tokens") or ()),
        begin_suppress=tuple(generation.get("begin_suppress_tokens") or ()),
    )


class TokenRules:
    """Which tokens are allowed next; state of a batch of decoder rows."""

    def __init__(self, tokens: WhisperTokens, num_rows: int, timestamps: bool, device: torch.device) -> None:
        self._tokens, self._timestamps, self._is_first = tokens, timestamps, True
        never = torch.zeros(tokens.size, device=device)
        never[[t for t in tokens.suppress if t < tokens.size]] = NEVER
        if timestamps:
            never[tokens.no_timestamps] = NEVER
        self._never_V = never
        self._begin = [t for t in tokens.begin_suppress if t < tokens.size]
        self._ids_V = torch.arange(tokens.size, device=device)
        # Of the tokens so far: is the last a timestamp, is the one before it (or is there none), the latest timestamp.
        self._last_is_stamp_B = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self._before_is_stamp_B = torch.ones(num_rows, dtype=torch.bool, device=device)
        self._latest_B = torch.full((num_rows,), tokens.first_timestamp - 1, device=device)

    def mask(self, logits_BV: Tensor) -> Tensor:
        """Logits with forbidden tokens at minus infinity."""
        logits = logits_BV.float() + self._never_V
        if self._is_first and self._begin:
            logits[:, self._begin] = NEVER
        return self._mask_timestamps(logits) if self._timestamps else logits

    def _mask_timestamps(self, logits_BV: Tensor) -> Tensor:
        tokens, ids = self._tokens, self._ids_V
        is_stamp = ids >= tokens.first_timestamp
        if self._is_first:
            forbidden = ~is_stamp | (ids > tokens.first_timestamp + tokens.max_initial_timestamp)
            return logits_BV.masked_fill(forbidden, NEVER)
        last, before = self._last_is_stamp_B[:, None], self._before_is_stamp_B[:, None]
        # After a pair of stamps comes text; after text and a stamp comes its twin, or the end.
        forbidden_BV = (last & before & is_stamp) | (last & ~before & (ids < tokens.end))
        floor_B = self._latest_B + torch.where(self._last_is_stamp_B & ~self._before_is_stamp_B, 0, 1)
        forbidden_BV |= is_stamp & (ids < floor_B[:, None])
        logits = logits_BV.masked_fill(forbidden_BV, NEVER)
        logprobs = logits.log_softmax(-1)
        stamp_mass = logprobs[:, tokens.first_timestamp :].logsumexp(-1)
        best_text = logprobs[:, : tokens.first_timestamp].amax(-1)
        return logits.masked_fill((stamp_mass > best_text)[:, None] & ~is_stamp, NEVER)

    def advance(self, chosen_B: Tensor) -> None:
        """Takes note of the tokens that were chosen."""
        stamp_B = chosen_B >= self._tokens.first_timestamp
        self._before_is_stamp_B = torch.ones_like(stamp_B) if self._is_first else self._last_is_stamp_B
        self._last_is_stamp_B = stamp_B
        self._latest_B = torch.where(stamp_B, chosen_B, self._latest_B)
        self._is_first = False

    def keep(self, rows: Tensor) -> None:
        """Drops finished rows."""
        self._last_is_stamp_B = self._last_is_stamp_B[rows]
        self._before_is_stamp_B = self._before_is_stamp_B[rows]
        self._latest_B = self._latest_B[rows]
