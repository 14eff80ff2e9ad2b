"""Whisper's timestamp tokens: when phrases begin and end."""

from __future__ import annotations

from itertools import pairwise

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.seq2seq.hypothesis import Hypothesis
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
