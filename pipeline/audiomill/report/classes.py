"""Kinds of failure that a report lets people hear, and how bad a segment is in each."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from audiomill.config.defaults import REPEATING_RATIO

_Row = Mapping[str, Any]

SURE = 0.8
"""Segments that are surer than this are not shown as doubtful."""
MAX_COMPRESSION_RATIO = REPEATING_RATIO
FAST_CHARS_PER_SECOND = 25.0
SLOW_CHARS_PER_SECOND = 2.0
_LONG_S = 3.0
"""Shorter segments have no rate worth the name."""


class FailureKind(NamedTuple):
    """`badness`: of a row of the segments table; None where it is not of this kind."""

    name: str
    title: str
    meaning: str
    badness: Callable[[_Row], float | None]


def speaking_rate(row: _Row) -> float:
    """Letters of the text for each second of its segment."""
    seconds: float = row["stop_s"] - row["start_s"]
    return len(row["text"] or "") / max(0.02, seconds)


def _doubtful(row: _Row) -> float | None:
    confidence: float | None = row["confidence"]
    return 1.0 - confidence if confidence is not None and confidence < SURE and row["text"] else None


def _retried(row: _Row) -> float | None:
    confidence: float = row["confidence"] or 0.0
    return float(row["fallback_level"]) + 1.0 - confidence if row["fallback_level"] and row["text"] else None


def _repeated(row: _Row) -> float | None:
    named = {"repeated", "compression_ratio"} & set(row["failed_checks"] or ())
    ratio = float(row["compression_ratio"] or 0.0)
    return ratio if named or ratio > MAX_COMPRESSION_RATIO else None


def _silenced(row: _Row) -> float | None:
    return float(len(row["first_pass_text"] or "")) if row["first_pass_text"] and not row["text"] else None


def _odd_rate(row: _Row) -> float | None:
    if row["text"] is None or row["stop_s"] - row["start_s"] < _LONG_S or _silenced(row) is not None:
        return None
    rate = speaking_rate(row)
    if rate > FAST_CHARS_PER_SECOND:
        return rate / FAST_CHARS_PER_SECOND
    return SLOW_CHARS_PER_SECOND / max(rate, 0.05) if rate < SLOW_CHARS_PER_SECOND else None


def _wrong(row: _Row) -> float | None:
    wer: float = row.get("wer") or 0.0
    return wer if wer > 0 else None


KINDS = (
    FailureKind("wer", "High word error rate", "differs most from the reference that came with the audio", _wrong),
    FailureKind("confidence", "Low confidence", "the model says itself that it is not sure", _doubtful),
    FailureKind("retried", "Retried", "the first attempt failed a check; before and after", _retried),
    FailureKind("repeated", "Repeated", "the text goes round in circles", _repeated),
    FailureKind("rate", "Suspicious rate", "more or fewer letters a second than people speak", _odd_rate),
    FailureKind("silenced", "Emptied", "a text was made of silence or noise, and dropped", _silenced),
)


@dataclass
class Worst:
    """The `most` worst rows of each kind, in bounded memory; `counts`: how many there are."""

    most: int
    counts: dict[str, int] = field(default_factory=lambda: {kind.name: 0 for kind in KINDS})
    _heaps: dict[str, list[tuple[float, str, _Row]]] = field(default_factory=lambda: {kind.name: [] for kind in KINDS})

    def add(self, row: _Row) -> list[str]:
        """Takes a row; returns the names of the kinds it is of."""
        results = []
        for kind in KINDS:
            badness = kind.badness(row)
            if badness is None:
                continue
            results.append(kind.name)
            self.counts[kind.name] += 1
            if self.most:
                heap = self._heaps[kind.name]
                heapq.heappush(heap, (badness, row["id"], row))
                if len(heap) > self.most:
                    heapq.heappop(heap)
        return results

    def rows(self, kind: str) -> list[_Row]:
        """Worst first."""
        return [row for _, _, row in sorted(self._heaps[kind], key=lambda each: (-each[0], each[1]))]
