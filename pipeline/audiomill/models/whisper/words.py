"""Tokens with frames and probabilities -> words with times."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.base import TimedText
from audiomill.models.seq2seq.hypothesis import Hypothesis, TimedToken
from audiomill.models.whisper.tokens import TIMESTAMP_STEP_S, WhisperTokens


class Evidence(NamedTuple):
    """What is known of a word. `probability`: mean of its tokens; `avg_logprob`: of its segment; `fallback_level`: that gave it."""

    probability: float
    avg_logprob: float
    fallback_level: int


CONFIDENCE_WEIGHTS = (2.907, 0.536, 4.12, -0.163)
"""Of one, the token probability (as log odds), the segment's avg_logprob, and a fallback level above 0."""


def confidence_features(evidence: Evidence) -> tuple[float, ...]:
    """What the weights are for."""
    return (1.0, _log_odds(evidence.probability), evidence.avg_logprob, float(evidence.fallback_level > 0))


def word_confidence(evidence: Evidence) -> float:
    """Probability that the word is right."""
    total = sum(weight * value for weight, value in zip(CONFIDENCE_WEIGHTS, confidence_features(evidence), strict=True))
    return 1.0 / (1.0 + math.exp(-total))


DOUBTFUL = 0.3
"""At most, of a text that no attempt got past its checks: it broke off or loops, however sure its words are."""


def segment_confidence(words: Sequence[float], no_speech_prob: float, has_failed: bool = False) -> float:
    """Expected share of words that are right; of a segment without words, how sure Whisper is that nobody speaks.

    Args:
        words: confidence of each.
        no_speech_prob: of the segment.
        has_failed: the text did not pass its checks.
    """
    sure = sum(words) / len(words) if words else no_speech_prob
    return min(sure, DOUBTFUL) if has_failed and words else sure


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(clipped / (1 - clipped))


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
