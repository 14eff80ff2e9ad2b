"""Diarization turns of a recording: who speaks from when to when, and where somebody else speaks too. Times: samples on the source's clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import samples_from_seconds, seconds_from_samples
from audiomill.speakers.clustering import Rule, VoiceSpan, clustered, speaker_posterior, unit

_LONGEST_PAUSE = samples_from_seconds(0.3)
"""Inside a turn, where nobody else speaks in it."""


class Turn(NamedTuple):
    """`overlap`: samples in which somebody else speaks too; `confidence`: that it is this speaker; `vector`: of the voice in
    this turn, of length 1, None where too little was heard."""

    channel: int | None
    speaker: str
    start: int
    stop: int
    overlap: int
    confidence: float
    vector: NDArray[np.float32] | None = None


class Voice(NamedTuple):
    """A speaker of a recording. `vector`: as in a turn, over everything that was heard."""

    speaker: str
    seconds: float
    vector: NDArray[np.float32] | None


class _Span(NamedTuple):
    """`speaker`: number, None where nothing tells who it is; `sum_D`: vectors times their seconds; `local`: local speaker."""

    channel: int | None
    speaker: Any
    start: int
    stop: int
    confidence: float
    sum_D: NDArray[np.float64] | None
    local: Any = None


def turns_of(
    observed: Sequence[Mapping[str, Any]], rule: Rule, num_speakers: int | None, max_speakers: int | None
) -> tuple[list[Turn], list[Voice]]:
    """Turns in the order of time, and the speakers in the order in which they come.

    Args:
        observed: local speakers of one recording, see `audiomill.tables.speaker_tables.OBSERVED`.
        rule: what makes two voices one.
        num_speakers: how many there are, if that is known.
        max_speakers: how many there may be.
    """
    rows = sorted(observed, key=lambda row: (row["start"], row["channel"] or 0, row["window"], row["number"]))
    with_vector = [row for row in rows if row["vector"] is not None]
    vectors = np.array([row["vector"] for row in with_vector], np.float32)
    seconds = np.array([row["alone_s"] for row in with_vector], np.float64)
    places = [VoiceSpan(row["channel"] or 0, row["start"], row["stop"]) for row in with_vector]
    numbers = clustered(vectors, seconds, places, rule, num_speakers, max_speakers)
    sure = speaker_posterior(vectors, seconds, numbers)
    numbered = iter(zip(numbers.tolist(), sure.tolist(), strict=True))
    spans = [_span(row, *((None, 0.5) if row["vector"] is None else next(numbered))) for row in rows]
    return arranged(_named(_given_to_nearest(spans)))


def arranged(spans: Sequence[_Span], longest_pause: int = _LONGEST_PAUSE) -> tuple[list[Turn], list[Voice]]:
    """Spans with speakers -> turns with their overlaps, and the speakers."""
    turns = _with_overlap(_joined(spans, longest_pause))
    return turns, _voices(turns, spans)


def channel_span(channel: int | None, start: int, stop: int) -> _Span:
    """Speech of a channel that is a speaker."""
    return _Span(channel, f"C{channel or 0}", start, stop, 1.0, None)


def _span(row: Mapping[str, Any], number: int | None, sure: float) -> _Span:
    vector = None if row["vector"] is None else row["alone_s"] * unit(np.asarray(row["vector"], np.float64)[None])[0]
    local = (row["channel"], row["window"], row["number"])
    return _Span(row["channel"], number, row["start"], row["stop"], row["probability"] * sure, vector, local)


def _given_to_nearest(spans: Sequence[_Span]) -> list[_Span]:
    """Spans too short for a vector belong to the same local speaker of their window, or else to whoever speaks nearest to them
    in time on the channel."""
    known: defaultdict[Any, list[_Span]] = defaultdict(list)
    for span in spans:
        if span.speaker is not None:
            for key in (span.local, span.channel, "anywhere"):
                known[key].append(span)
    results = []
    for span in spans:
        others = known.get(span.local) or known.get(span.channel) or known.get("anywhere")
        if span.speaker is None and others:
            nearest = min(others, key=lambda each: max(each.start - span.stop, span.start - each.stop))
            span = span._replace(speaker=nearest.speaker)
        results.append(span)
    return results


def _named(spans: Iterable[_Span]) -> list[_Span]:
    """S1, S2 ... as they come."""
    ordered = sorted(spans, key=lambda span: (span.start, span.channel or 0, span.stop))
    names: dict[Any, str] = {}
    for span in ordered:
        names.setdefault(span.speaker, f"S{len(names) + 1}")
    return [span._replace(speaker=names[span.speaker]) for span in ordered]


def _joined(spans: Iterable[_Span], longest_pause: int) -> list[Turn]:
    """Spans of one speaker that overlap or follow each other become one turn, unless another speaks between them."""
    ordered = sorted(spans, key=lambda span: (span.start, span.channel or 0, span.stop))
    groups: list[list[_Span]] = []
    latest: dict[tuple[int | None, str], int] = {}
    ends: dict[str, int] = {}  # where each speaker was heard last
    for span in ordered:
        at = latest.get((span.channel, span.speaker))
        end = 0 if at is None else max(each.stop for each in groups[at][-8:])
        is_between = any(stop > end and name != span.speaker for name, stop in ends.items())
        if at is not None and (span.start <= end or (span.start - end <= longest_pause and not is_between)):
            groups[at].append(span)
        else:
            latest[(span.channel, span.speaker)] = len(groups)
            groups.append([span])
        ends[span.speaker] = max(ends.get(span.speaker, 0), span.stop)
    return [_turn(group) for group in groups]


def _turn(group: Sequence[_Span]) -> Turn:
    lengths = [span.stop - span.start for span in group]
    mean = sum(span.confidence * length for span, length in zip(group, lengths, strict=True)) / max(1, sum(lengths))
    first = group[0]
    stop = max(span.stop for span in group)
    return Turn(first.channel, first.speaker, first.start, stop, 0, round(mean, 4), _mean_vector(group))


def _mean_vector(spans: Sequence[_Span]) -> NDArray[np.float32] | None:
    """Of length 1."""
    sums = [span.sum_D for span in spans if span.sum_D is not None]
    return unit(np.sum(sums, axis=0)[None])[0].astype(np.float32) if sums else None


def _with_overlap(turns: Sequence[Turn]) -> list[Turn]:
    """Counts the samples of each turn in which another speaker, on any channel, speaks too."""
    result, first = [], 0
    longest = max((turn.stop - turn.start for turn in turns), default=0)
    for turn in turns:
        while turns[first].start < turn.start - longest:
            first += 1
        both: list[tuple[int, int]] = []
        for other in turns[first:]:
            if other.start >= turn.stop:
                break
            if other.speaker != turn.speaker and other.stop > turn.start:
                both.append((max(turn.start, other.start), min(turn.stop, other.stop)))
        result.append(turn._replace(overlap=_length(both)))
    return result


def _length(spans: Iterable[tuple[int, int]]) -> int:
    """Of a union."""
    total, end = 0, -1
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def _voices(turns: Sequence[Turn], spans: Sequence[_Span]) -> list[Voice]:
    of: defaultdict[str, list[_Span]] = defaultdict(list)
    for span in spans:
        of[span.speaker].append(span)
    names = dict.fromkeys(turn.speaker for turn in turns)
    return [
        Voice(name, seconds_from_samples(_length((s.start, s.stop) for s in of[name])), _mean_vector(of[name]))
        for name in names
    ]
