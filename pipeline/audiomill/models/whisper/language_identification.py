"""Language identification by Whisper, and where the spoken language changes inside a segment.

First the decoder is asked for the language of short windows of the encoder's output, which is there already. Windows are
uncertain, but where none contradicts the others the segment is in one language. Where one does, the stretches between quiet
points are encoded alone; the segment is cut where the most probable sequence of languages changes, if both sides alone are
clearly in different ones.

B rows, F encoder frames, V vocabulary, K languages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from audiomill.audio.clock import samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.vad import FRAME_SAMPLES
from audiomill.models.seq2seq.cross_attention_cache import CrossKV
from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.decoding_fallback import smooth_languages
from audiomill.models.seq2seq.kv_cache import KVCache
from audiomill.models.whisper.folder import WHISPER_HOP
from audiomill.models.whisper.tokens import WhisperTokens

WINDOW_FRAMES = 150
"""3 s: in shorter ones the decoder guesses."""
_HOP_FRAMES = 75
SUSPICIOUS = 0.02
"""Probability of the common language in some window below which a segment is looked at. Of 32 real segments of one language
(base) 9% are looked at, of 40 that join two or three languages all."""
_SURE = 0.9
"""Probability of its language that each side of a cut has alone. Single stretches are often taken for other languages."""
_LEAST = samples_from_seconds(1.5)
_QUIET = samples_from_seconds(0.2)
_STEP = samples_from_seconds(0.01)
_FLOOR = 1e-3

Detect = Callable[[Sequence[NDArray[np.int16]]], list[dict[str, float]]]
"""Probabilities of languages for stretches of sound, each encoded alone."""


class DetectedLanguage(NamedTuple):
    """A language with its probability among all that were looked for; None where it was given. `may_change`: inside the
    segment."""

    token: int | None
    probabilities: dict[str, float] | None
    may_change: bool = False


def detect_languages(
    weights: DecoderWeights, looked_at: CrossKV, tokens: WhisperTokens, among: Sequence[str]
) -> list[dict[str, float]]:
    """Probability of each language (or of those `among`, if any) for each row."""
    start = torch.full((len(looked_at), 1), tokens.start, device=weights.device)
    logits_BV = weights.logits(KVCache(weights, len(looked_at), 1).admit(looked_at, start))[:, 0]
    codes = sorted(among or tokens.languages, key=lambda code: tokens.languages[code])
    probability_BK = logits_BV[:, [tokens.languages[code] for code in codes]].softmax(-1)
    return [dict(zip(codes, row, strict=True)) for row in probability_BK.tolist()]


def identify_languages(
    weights: DecoderWeights,
    looked_at: CrossKV,
    tokens: WhisperTokens,
    among: Sequence[str],
    watched: Sequence[Segment] | None,
) -> list[DetectedLanguage]:
    """The most probable language of each row.

    Args:
        weights: of the decoder.
        looked_at: the rows.
        tokens: of the languages.
        among: these languages alone; all where there are none.
        watched: the segments of the rows, where a change inside them is to be noticed.
    """
    results = []
    for row, probabilities in enumerate(detect_languages(weights, looked_at, tokens, among)):
        best = max(probabilities, key=probabilities.__getitem__)
        starts = window_starts(-(-len(watched[row].pcm_T) // WHISPER_HOP)) if watched is not None else []
        may_change = False
        if starts:  # a batch of their own, whatever else is decoded
            windows = looked_at.take([row]).windows(starts, WINDOW_FRAMES)
            may_change = contradict(detect_languages(weights, windows, tokens, among))
        results.append(DetectedLanguage(tokens.languages[best], probabilities, may_change))
    return results


class LanguagePart(NamedTuple):
    """Samples `start` to `stop` of a segment, and their language."""

    start: int
    stop: int
    language: str
    probability: float


def window_starts(num_frames: int) -> list[int]:
    """First frames of the windows that cover a segment; none where it has room for one alone."""
    last = num_frames - WINDOW_FRAMES
    if last < _HOP_FRAMES:
        return []
    starts = list(range(0, last + 1, _HOP_FRAMES))
    return starts if starts[-1] == last else [*starts, last]


def contradict(windows: Sequence[Mapping[str, float]]) -> bool:
    """Whether some window is hardly in the language that fits all of them best."""
    if not windows:
        return False
    common = max(windows[0], key=lambda code: sum(math.log(max(each[code], _FLOOR)) for each in windows))
    return min(each[common] for each in windows) < SUSPICIOUS


def language_parts(pcm_T: NDArray[np.int16], detect: Detect) -> list[LanguagePart]:
    """The parts of a segment by language; a single one where it does not change, or not clearly.

    Args:
        pcm_T: of the segment, without context.
        detect: identifies languages.
    """
    points = quiet_points(pcm_T)
    codes = smooth_languages(detect([pcm_T[first:last] for first, last in pairwise(points)]))
    changes = [point for point, (one, other) in zip(points[1:-1], pairwise(codes), strict=True) if one != other]
    while True:
        edges = [0, *changes, len(pcm_T)]
        spans = list(pairwise(edges))
        sides = detect([pcm_T[first:last] for first, last in spans])
        clearness = [_clearness(*pair) for pair in pairwise(sides)]
        if min(clearness, default=1.0) >= _SURE:
            best = [max(side, key=side.__getitem__) for side in sides]
            return [LanguagePart(*spans[at], code, sides[at][code]) for at, code in enumerate(best)]
        changes.pop(int(np.argmin(clearness)))


def _clearness(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Probability of the less sure of two sides; 0 where both are in the same language."""
    code, other_code = (max(each, key=each.__getitem__) for each in (one, other))
    return 0.0 if code == other_code else min(one[code], other[other_code])


def quiet_points(pcm_T: NDArray[np.int16]) -> list[int]:
    """The quietest points of a segment, its ends among them, at least `_LEAST` apart and at whole frames of voice activity."""
    sums = np.concatenate([[0], np.cumsum(np.abs(pcm_T.astype(np.int64)))])
    starts = np.arange(0, max(0, len(pcm_T) - _QUIET), _STEP)
    points = [0, len(pcm_T)]
    for at in np.argsort(sums[starts + _QUIET] - sums[starts], kind="stable").tolist():
        middle = (int(starts[at]) + _QUIET // 2) // FRAME_SAMPLES * FRAME_SAMPLES
        if all(abs(middle - point) >= _LEAST for point in points):
            points.append(middle)
    return sorted(points)
