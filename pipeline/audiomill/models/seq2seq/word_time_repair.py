"""Times of words that can be: in order, without overlap, inside the segment, and not through a pause.

Attention gives a token everything up to the next one, the pause behind it too; and a decoder that hears a segment in two
passes may say words of the seam twice. T samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.models.base import TimedText
from audiomill.models.seq2seq.hypothesis import DecodedChunk

LEVEL_SAMPLES = MODEL_SAMPLE_RATE // 100
_LONG_S = 0.35
"""Words that are longer are looked into for a pause."""
MIN_QUIET_S, QUIET, KEPT_S = 0.25, 0.05, 0.05
"""A pause: this long, by 26 dB below the word's loudest hundredth of a second; so much of it stays with the word."""
LONGEST_S, LONGEST_A_LETTER_S, LONGEST_A_DIGIT_S = 1.0, 0.12, 0.6
"""A word lasts at most so long, and so much more for each letter and digit."""
SEAM = MODEL_SAMPLE_RATE
"""Samples in front of a pass whose words it may say again."""
MIN_SAID_TWICE, MAX_SAID_TWICE = 2, 24
"""Tokens at a seam."""


def repair_times(words: Sequence[TimedText], pcm_T: NDArray[np.int16]) -> tuple[TimedText, ...]:
    """Words in their order with times that can be.

    Args:
        words: of a segment; samples from its start.
        pcm_T: its sound.
    """
    return ordered([_without_pause(word, pcm_T) for word in words], len(pcm_T))


def ordered(words: Sequence[TimedText], num_samples: int) -> tuple[TimedText, ...]:
    """Starts that do not fall, stops no later than the next start, all inside the segment, none absurdly long.

    Args:
        words: in the order of the text.
        num_samples: of the segment.
    """
    starts = np.clip(np.array([word.start for word in words], np.int64), 0, num_samples)
    starts = np.minimum.accumulate(starts[::-1])[::-1]  # what lies behind a later word was heard too late
    results = []
    for at, (word, start) in enumerate(zip(words, starts.tolist(), strict=True)):
        limit = num_samples if at + 1 == len(words) else int(starts[at + 1])
        stop = min(max(word.stop, start), limit, start + _longest(word.text))
        results.append(word._replace(start=start, stop=max(start, stop)))
    return tuple(results)


def _longest(text: str) -> int:
    digits = sum(letter.isdigit() for letter in text)
    seconds = LONGEST_S + LONGEST_A_LETTER_S * (len(text) - digits) + LONGEST_A_DIGIT_S * digits
    return int(seconds * MODEL_SAMPLE_RATE)


def _without_pause(word: TimedText, pcm_T: NDArray[np.int16]) -> TimedText:
    """Without silence at its end, or at its beginning."""
    if word.stop - word.start < _LONG_S * MODEL_SAMPLE_RATE:
        return word
    sound = pcm_T[max(0, word.start) : word.stop].astype(np.float32)
    count = len(sound) // LEVEL_SAMPLES
    if count < 2:
        return word
    level = np.sqrt((sound[: count * LEVEL_SAMPLES].reshape(count, LEVEL_SAMPLES) ** 2).mean(1))
    loud = np.flatnonzero(level > QUIET * level.max())
    if not len(loud):
        return word
    least, margin = round(MIN_QUIET_S * 100), round(KEPT_S * 100)
    before, behind = int(loud[0]), count - 1 - int(loud[-1])
    start = word.start + (before - margin) * LEVEL_SAMPLES if before >= least else word.start
    stop = word.start + (int(loud[-1]) + 1 + margin) * LEVEL_SAMPLES if behind >= least else word.stop
    return word._replace(start=start, stop=stop)


def drop_repeated_chunks(chunks: Sequence[DecodedChunk], end: int) -> tuple[DecodedChunk, ...]:
    """Passes without what they say again of the pass before: it ended behind the place from which they heard.

    Args:
        chunks: of a segment, in order.
        end: the first token that is no text.
    """
    results = list(chunks[:1])
    for before, each in pairwise(chunks):
        results.append(_cut(each, _num_said_twice(results[-1] if results else before, each, end), end))
    return tuple(results)


def _num_said_twice(before: DecodedChunk, after: DecodedChunk, end: int) -> int:
    """Text tokens at the beginning of a pass that are those at the end of the one before, at the same time."""
    if not before.timed or not after.timed:
        return 0
    late = [token.token for token in before.timed if token.stop > after.start - SEAM]
    first = [token for token in after.decoded.tokens if token < end]
    most = min(len(late), len(first), MAX_SAID_TWICE)
    sizes = (size for size in range(most, MIN_SAID_TWICE - 1, -1) if late[-size:] == first[:size])
    return next((size for size in sizes if before.timed[-size].stop > after.start), 0)


def _cut(stretch: DecodedChunk, count: int, end: int) -> DecodedChunk:
    """Without its first text tokens; marks of time stay."""
    if not count:
        return stretch
    decoded, timed = stretch.decoded, stretch.timed
    is_text = np.cumsum([token < end for token in decoded.tokens])
    positions = [at for at, token in enumerate(decoded.tokens) if token >= end or is_text[at] > count]
    return stretch._replace(
        decoded=decoded._replace(
            tokens=[decoded.tokens[at] for at in positions], logprobs=[decoded.logprobs[at] for at in positions]
        ),
        timed=None if timed is None else timed[count:],
    )
