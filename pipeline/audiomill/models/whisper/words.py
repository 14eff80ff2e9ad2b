"""Tokens with frames and probabilities -> words with times."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.base import TimedText
from audiomill.models.seq2seq.hypothesis import Hypothesis, TimedToken
from audiomill.models.whisper.tokens import TIMESTAMP_STEP_S, WhisperTokens

STAMP_SAMPLES = int(TIMESTAMP_STEP_S * MODEL_SAMPLE_RATE)


def last_beginning(hypothesis: Hypothesis, tokens: WhisperTokens) -> float:
    """Seconds at which the last phrase with words is said to begin. Where it is said to end tells nothing: in a short
    context Whisper likes to close its phrases late."""
    result = 0.0
    for stretch in hypothesis.chunks:
        for stamp, text in pairwise(stretch.decoded.tokens):
            if stamp >= tokens.first_timestamp and text < tokens.end:
                at = stretch.start / MODEL_SAMPLE_RATE + (stamp - tokens.first_timestamp) * TIMESTAMP_STEP_S
                result = max(result, at)
    return result


def phrase_tokens(hypothesis: Hypothesis, tokens: WhisperTokens, num_samples: int) -> list[tuple[list[int], int, int]]:
    """Text tokens between timestamp tokens, with the samples that the stamps stand for.

    A last phrase without end stamp ends with its stretch.
    """
    phrases: list[tuple[list[int], int, int]] = []
    stops = [*(stretch.start for stretch in hypothesis.chunks[1:]), num_samples]
    for stretch, stop in zip(hypothesis.chunks, stops, strict=True):
        start, text = stretch.start, list[int]()
        for token in stretch.decoded.tokens:
            if token < tokens.end:
                text.append(token)
            elif token >= tokens.first_timestamp:
                at = min(stretch.start + (token - tokens.first_timestamp) * STAMP_SAMPLES, stop)
                if text:
                    phrases.append((text, start, at))
                    text = []
                start = at
        if text:
            phrases.append((text, start, stop))
    return phrases


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
