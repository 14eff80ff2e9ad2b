"""Tokens with frames and probabilities -> words with times."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from audiomill.models.base import TimedText
from audiomill.models.seq2seq.hypothesis import TimedToken

_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue", "km", "bo"})
"""Languages written without blanks: every character counts as a word."""
BROKEN = "\ufffd"
"""What a decoder gives for part of a character."""


def words_of(
    tokens: Sequence[TimedToken],
    tokenizer: Any,
    language: str | None,
    judge: Callable[[float], float] | None = None,
) -> tuple[TimedText, ...]:
    """Words in order, none overlapping; punctuation belongs to the word before it.

    Args:
        tokens: text tokens of one segment, starts not falling.
        tokenizer: a `tokenizers.Tokenizer`.
        language: decides whether blanks part words.
        judge: the confidence of a word by the mean probability of its tokens.
    """
    groups = word_groups(tokens, tokenizer, language)
    return tuple(_word(text, members, judge) for text, members in groups if text.strip())


def word_groups(
    tokens: Sequence[TimedToken], tokenizer: Any, language: str | None
) -> list[tuple[str, list[TimedToken]]]:
    """Text of each word with its tokens; arguments as `words_of` has them."""
    groups: list[tuple[str, list[TimedToken]]] = []
    for text, members in _characters(tokens, tokenizer):
        is_new = language in _UNSPACED or text.startswith(" ") or not groups
        if groups and (not is_new or _is_punctuation(text)):
            groups[-1] = (groups[-1][0] + text, groups[-1][1] + members)
        else:
            groups.append((text, members))
    return groups


def _word(text: str, members: Sequence[TimedToken], judge: Callable[[float], float] | None) -> TimedText:
    probability = float(np.mean([member.probability for member in members]))
    confidence = None if judge is None else judge(probability)
    return TimedText(text.strip(), members[0].start, members[-1].stop, probability, confidence)


def _characters(tokens: Sequence[TimedToken], tokenizer: Any) -> list[tuple[str, list[TimedToken]]]:
    """Tokens joined until they make whole characters."""
    characters: list[tuple[str, list[TimedToken]]] = []
    waiting: list[TimedToken] = []
    singles = tokenizer.decode_batch([[token.token] for token in tokens])
    for single, each in zip(singles, tokens, strict=True):
        waiting.append(each)
        text = single if len(waiting) == 1 else tokenizer.decode([member.token for member in waiting])
        if BROKEN not in text:
            characters.append((text, waiting))
            waiting = []
    return characters


def _is_punctuation(text: str) -> bool:
    return bool(text.strip()) and all(unicodedata.category(c)[0] in "PS" for c in text.strip())
