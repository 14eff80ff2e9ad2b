"""Fallback: texts that fail their quality checks are decoded again, in a longer context and by a second model.

Source: openai/whisper transcribe.py `decode_with_fallback`, whose levels are temperatures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.models.seq2seq.autoregressive import AutoregressiveModel, FallbackLevel, FallbackPolicy
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.quality_checks import (
    DecodingMetrics,
    failed_checks,
    has_no_speech,
    is_better,
    is_loop,
    is_not_worth_retrying,
    is_silence,
)

SILENCE = "silence"

DecodeAll = Callable[[Sequence[Segment], AutoregressiveModel, DecodingOptions], "list[Hypothesis | None]"]
"""Decodes any number of segments in exact batches; None where the model fails."""


class _Candidate(NamedTuple):
    """A text with what its decoder reports of it."""

    hypothesis: Hypothesis
    metrics: DecodingMetrics


def decode_with_fallback(
    segments: Sequence[Segment], hypotheses: Sequence[Hypothesis], policy: FallbackPolicy, decode_all: DecodeAll
) -> list[Hypothesis]:
    """Texts of the first pass, replaced by better ones where they fail their checks.

    Args:
        segments: of a piece.
        hypotheses: of the first pass.
        policy: levels and thresholds.
        decode_all: decodes segments again.
    """
    segments, hypotheses = _with_agreed_languages(segments, hypotheses, policy, decode_all)
    candidates = _measured(segments, hypotheses, policy)
    for level in policy.levels:
        rows = [row for row, each in enumerate(candidates) if _is_tried(each, segments[row], level, policy)]
        for row, hypothesis in _decode_rows(rows, segments, level, decode_all):
            candidates[row] = _better(candidates[row], hypothesis, segments[row], policy)
    candidates = _with_deletions_filled(segments, candidates, policy, decode_all)
    return [_checked(each.hypothesis, each.metrics, policy.checks) for each in candidates]


def check_texts(
    segments: Sequence[Segment], hypotheses: Sequence[Hypothesis], policy: FallbackPolicy
) -> list[Hypothesis]:
    """Texts with the names of the checks that they fail; nothing is decoded again."""
    candidates = _measured(segments, hypotheses, policy)
    return [_checked(each.hypothesis, each.metrics, policy.checks) for each in candidates]


def agreed_languages(segments: Sequence[Segment], hypotheses: Sequence[Hypothesis]) -> list[Segment]:
    """The segments with the language that their recording agrees on, where it was detected: one that is hard to identify
    takes the language of those around it, see `audiomill.models.seq2seq.decoding_fallback`."""
    tracks: defaultdict[tuple[str, int | None], list[int]] = defaultdict(list)
    for index, hypothesis in enumerate(hypotheses):
        if hypothesis.languages is not None:
            tracks[segments[index].track].append(index)
    results = list(segments)
    for rows in tracks.values():
        rows.sort(key=lambda index: segments[index].start)
        for index, code in zip(rows, smooth_languages([hypotheses[i].languages or {} for i in rows]), strict=True):
            results[index] = segments[index]._replace(language=code)
    return results


def _with_agreed_languages(
    segments: Sequence[Segment], hypotheses: Sequence[Hypothesis], policy: FallbackPolicy, decode_all: DecodeAll
) -> tuple[Sequence[Segment], Sequence[Hypothesis]]:
    """Segments in the language of their recording; what was taken for another one is decoded again."""
    segments, results = agreed_languages(segments, hypotheses), list(hypotheses)
    rows = [row for row, each in enumerate(results) if each.languages and segments[row].language != each.language]
    for row, hypothesis in _decode_rows(rows, segments, FallbackLevel(policy.model, policy.first), decode_all):
        results[row] = keep_language_probabilities(results[row], hypothesis)
    return segments, results


def keep_language_probabilities(before: Hypothesis, after: Hypothesis) -> Hypothesis:
    """The second text, with what is known of languages from the first pass."""
    if before.languages is None:
        return after
    probability = before.languages.get(after.language or "", 0.0)
    return after._replace(languages=before.languages, language_probability=probability)


def _measured(
    segments: Sequence[Segment], hypotheses: Sequence[Hypothesis], policy: FallbackPolicy
) -> list[_Candidate]:
    metrics = policy.model.metrics(segments, hypotheses)
    return [_Candidate(*pair) for pair in zip(hypotheses, metrics, strict=True)]


def _is_tried(candidate: _Candidate, segment: Segment, level: FallbackLevel, policy: FallbackPolicy) -> bool:
    """Whether a text that fails a check is decoded at this level.

    Not what is made of silence, unless it loops: a loop makes the log-probability of a segment that has speech low, too
    (openai/whisper#2795). By the same model neither what is hopeless nor what the first pass saw in the same context.
    """
    metrics = candidate.metrics
    failed = failed_checks(metrics, policy.checks)
    may_be_speech = is_loop(metrics, policy.checks) and not has_no_speech(metrics)
    if not failed or (is_silence(metrics, policy.checks) and not may_be_speech):
        return False
    if level.model is policy.second:
        return True
    length = len(segment.pcm_T)
    is_new = level.model.context(length, policy.first) < level.model.context(length, level.options)
    return is_new and not is_not_worth_retrying(metrics, failed)


def _decode_rows(
    rows: Sequence[int], segments: Sequence[Segment], level: FallbackLevel, decode_all: DecodeAll
) -> list[tuple[int, Hypothesis]]:
    """Rows and their new texts, without those that the model failed on."""
    decoded = decode_all([segments[row] for row in rows], *level) if rows else []
    return [(row, hypothesis) for row, hypothesis in zip(rows, decoded, strict=True) if hypothesis is not None]


def _better(before: _Candidate, hypothesis: Hypothesis, segment: Segment, policy: FallbackPolicy) -> _Candidate:
    """Fewer failed checks win, then what is surer. Of the same tokens the first stays: the last bits of
    their log-probabilities depend on how many rows were in their batch."""
    if hypothesis.tokens == before.hypothesis.tokens:
        return before
    (after,) = _measured([segment], [hypothesis], policy)
    if not is_better(after.metrics, before.metrics, policy.checks):
        return before
    return after._replace(hypothesis=keep_language_probabilities(before.hypothesis, hypothesis))


def _with_deletions_filled(
    segments: Sequence[Segment], candidates: Sequence[_Candidate], policy: FallbackPolicy, decode_all: DecodeAll
) -> list[_Candidate]:
    """Texts with the speech that they left out. Where nobody speaks, or a part fails, they stay."""
    results = list(candidates)
    if policy.recovery is None or not policy.checks.fill_deletions:
        return results
    parts: list[Any] = []
    for row, each in enumerate(candidates):
        if not is_silence(each.metrics, policy.checks):
            parts += policy.recovery.find_deletions(row, segments[row], each.hypothesis)
    if not parts:
        return results
    decoded = decode_all([part.segment for part in parts], policy.model, policy.first)
    by_row: defaultdict[int, list[tuple[Any, Hypothesis | None]]] = defaultdict(list)
    for part, hypothesis in zip(parts, decoded, strict=True):
        by_row[part.row].append((part, hypothesis))
    for row, several in by_row.items():
        pairs = [(part, hypothesis) for part, hypothesis in several if hypothesis is not None]
        if len(pairs) == len(several):
            filled = policy.recovery.fill_deletions(results[row].hypothesis, pairs)
            (results[row],) = _measured([segments[row]], [filled], policy)
    return results


def _checked(hypothesis: Hypothesis, metrics: DecodingMetrics, checks: TranscriptConfig) -> Hypothesis:
    """Marks what fails at every level, and empties what is made of silence (or of doubt, by option)."""
    if is_silence(metrics, checks):
        has_tokens = any(chunk.decoded.tokens for chunk in hypothesis.chunks)
        return _emptied(hypothesis, (SILENCE,)) if has_tokens else hypothesis
    failed = failed_checks(metrics, checks)
    is_dropped = bool(failed) and checks.low_confidence == "drop"
    return _emptied(hypothesis, failed) if is_dropped else hypothesis._replace(failed_checks=failed)


def _emptied(hypothesis: Hypothesis, failed: tuple[str, ...]) -> Hypothesis:
    """Without its words; what was known about them stays."""
    chunks = tuple(
        chunk._replace(decoded=chunk.decoded._replace(tokens=[], logprobs=[]), timed=None)
        for chunk in hypothesis.chunks
    )
    return hypothesis._replace(chunks=chunks, failed_checks=failed)


SWITCH = 0.05
"""Probability that the next segment is in another language. An isolated segment is believed to be in another language
where that is some 400 times as probable; two in a row need 20 times each."""
LEAST = 1e-4


def smooth_languages(probabilities: Sequence[Mapping[str, float]]) -> list[str]:
    """The most probable sequence of languages (Viterbi 1967).

    Args:
        probabilities: of each language for each segment; languages that are not named count as impossible.

    Returns:
        A language for each segment.
    """
    codes = sorted({code for probability in probabilities for code in probability})
    emitted_SK = np.log([[max(each.get(code, 0.0), LEAST) for code in codes] for each in probabilities])
    # The number of languages does not make a switch dearer: what counts is how probable this one is.
    step_KK = np.full((len(codes), len(codes)), np.log(SWITCH))
    np.fill_diagonal(step_KK, np.log(1 - SWITCH))
    best_K, came_from = emitted_SK[0], []
    for emitted_K in emitted_SK[1:]:
        ways_KK = best_K[:, None] + step_KK
        came_from.append(ways_KK.argmax(0))
        best_K = ways_KK.max(0) + emitted_K
    path = [int(best_K.argmax())]
    for back_K in reversed(came_from):
        path.append(int(back_K[path[-1]]))
    return [codes[k] for k in reversed(path)]
