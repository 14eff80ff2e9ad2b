"""Speech that a text says nothing of: Whisper may begin with what is loud, or leave a sentence out in the middle. Where words are
too few for the speech between two pauses, the segment is cut there and its parts are decoded alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.vad import FRAME_SAMPLES, speech_samples, voiced_frames
from audiomill.models.seq2seq.hypothesis import DecodedChunk, Hypothesis, TimedToken

SLOWEST = 4.0
"""Bytes of text a second of speech: English has 15, and 12 where a letter has three bytes."""
_MIN_SPEECH_S = 1.0
MIN_PAUSE_S = 0.3
LULL_SHARE = 0.7
"""Of missing speech lies between the times of two tokens, which are not exact; as much of that is heard as speech."""
PROBABILITY = 0.5
"""Of speech, as voice activity has it."""
MIN_LOGPROB = -0.7
"""Mean, of what is put in: what was left out must be clear when it stands alone."""
MIN_MORE_WORDS = 2


class Part(NamedTuple):
    """Of a segment that is decoded again, from `start` (samples of the segment) on. `row`: the segment's number."""

    row: int
    segment: Segment
    start: int


def deleted_parts(
    row: int, segment: Segment, hypothesis: Hypothesis, sizes: Callable[[Sequence[int]], list[int]]
) -> list[Part]:
    """The parts of a segment some of whose speech has too few words, or none.

    Args:
        row: of the segment.
        segment: without context.
        hypothesis: with times of tokens.
        sizes: bytes of each of some tokens.
    """
    timed = [token for stretch in hypothesis.chunks for token in stretch.timed or ()]
    if not timed or not any(_is_spoken(segment.pcm_T[start:stop]) for start, stop in _lulls(timed, segment.pcm_T)):
        return []
    runs = _runs(segment)
    written = sizes([token.token for token in timed])
    cuts: set[int] = set()
    for at, (start, stop) in enumerate(runs):
        seconds = (stop - start) / samples_from_seconds(1.0)
        inside = sum(
            size for token, size in zip(timed, written, strict=True) if start <= (token.start + token.stop) // 2 < stop
        )
        if seconds >= _MIN_SPEECH_S and inside < SLOWEST * seconds:
            cuts |= {at, at + 1}
    middles = [0, *((a[1] + b[0]) // 2 for a, b in pairwise(runs)), len(segment.pcm_T)]
    edges = sorted({0, len(segment.pcm_T), *(middles[at] for at in cuts)})
    if len(edges) < 3:
        return []  # nothing to part
    parts = []
    for part, (start, stop) in zip(segment.cut_at(edges), pairwise(edges), strict=True):
        speech = sum(max(0, min(b, stop) - max(a, start)) for a, b in runs)
        parts.append(Part(row, part._replace(language=hypothesis.language, speech=speech), start))
    return parts


def _lulls(timed: Sequence[TimedToken], pcm_T: NDArray[np.int16]) -> list[tuple[int, int]]:
    """Where some token lasts nearly as long as speech that is missing, or nothing is written for as long."""
    marks = [0, *(token.start for token in timed), timed[-1].stop, len(pcm_T)]
    return [(a, b) for a, b in pairwise(marks) if b - a > samples_from_seconds(LULL_SHARE * _MIN_SPEECH_S)]


def _is_spoken(pcm_T: NDArray[np.int16]) -> bool:
    """Cheap, beside a look at the whole segment: most lulls are pauses."""
    return speech_samples(pcm_T, PROBABILITY) > samples_from_seconds(LULL_SHARE * LULL_SHARE * _MIN_SPEECH_S)


def _runs(segment: Segment) -> list[tuple[int, int]]:
    """Samples with speech, between pauses."""
    vad_mask = voiced_frames(segment.pcm_T, PROBABILITY)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], vad_mask, [False]]).astype(np.int8)))
    joined: list[tuple[int, int]] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        low, high = first * FRAME_SAMPLES, min(len(segment.pcm_T), last * FRAME_SAMPLES)
        if joined and low - joined[-1][1] < samples_from_seconds(MIN_PAUSE_S):
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined


def join_hypotheses(hypothesis: Hypothesis, parts: Sequence[tuple[Part, Hypothesis]]) -> Hypothesis:
    """Texts of the parts, as one of the segment."""
    chunks = [_moved(stretch, part.start) for part, result in parts for stretch in result.chunks]
    return hypothesis._replace(chunks=tuple(chunks))


def _moved(stretch: DecodedChunk, by: int) -> DecodedChunk:
    timed = stretch.timed and tuple(t._replace(start=t.start + by, stop=t.stop + by) for t in stretch.timed)
    return stretch._replace(start=stretch.start + by, timed=timed)
