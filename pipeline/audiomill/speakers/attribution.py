"""Whose a word is, and whose a segment: by how long its time and a turn are the same. Times: seconds on the source's clock."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

FARTHEST_S = 0.5
"""A word beside all turns belongs to one that is so near, else to whoever has most of its segment."""
LEAST_WORD_S = 0.02
"""Words without a length are heard for this long."""


class Timeline:
    """Turns of one channel of a recording, which answers who speaks."""

    def __init__(self, turns: Sequence[Mapping[str, Any]]) -> None:
        self._turns = sorted(turns, key=lambda turn: (turn["start_s"], turn["stop_s"]))
        self._starts = [turn["start_s"] for turn in self._turns]
        self._longest = max((turn["stop_s"] - turn["start_s"] for turn in self._turns), default=0.0)

    def shares(self, start_s: float, stop_s: float) -> dict[str, float]:
        """Seconds that each speaker speaks in between, where that is any."""
        results: defaultdict[str, float] = defaultdict(float)
        for at in range(bisect_left(self._starts, start_s - self._longest), len(self._turns)):
            turn = self._turns[at]
            if turn["start_s"] >= stop_s:
                break
            both = min(turn["stop_s"], stop_s) - max(turn["start_s"], start_s)
            if both > 0:
                results[turn["speaker"]] += both
        return dict(results)

    def nearest(self, start_s: float, stop_s: float) -> str | None:
        """Whose turn is near enough."""
        near = self._turns[
            bisect_left(self._starts, start_s - self._longest - FARTHEST_S) : bisect_left(
                self._starts, stop_s + FARTHEST_S
            )
        ]
        gaps = [(max(turn["start_s"] - stop_s, start_s - turn["stop_s"]), turn["speaker"]) for turn in near]
        best = min(gaps, default=(FARTHEST_S + 1, None))
        return best[1] if best[0] <= FARTHEST_S else None


def with_speakers(segments: Sequence[dict[str, Any]], turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the segments table with the speakers of their words and their own.

    Args:
        segments: rows.
        turns: of the same recordings, rows of the turns table.
    """
    of: defaultdict[tuple[str, int | None], list[Mapping[str, Any]]] = defaultdict(list)
    for turn in turns:
        of[(turn["recording_id"], turn["channel"])].append(turn)
    timelines = {key: Timeline(some) for key, some in of.items()}
    nobody = Timeline([])
    return [_speaker_fields(row, timelines.get((row["recording_id"], row["channel"]), nobody)) for row in segments]


def _speaker_fields(segment: dict[str, Any], timeline: Timeline) -> dict[str, Any]:
    shares = timeline.shares(segment["start_s"], segment["stop_s"])
    most = _longest(shares)
    if segment["words"] is None:
        return segment | {"speaker": most}
    words, before = [], most
    spoken: defaultdict[str, float] = defaultdict(float)
    for word in segment["words"]:
        start_s, stop_s = word["start_s"], max(word["stop_s"], word["start_s"] + LEAST_WORD_S)
        there = timeline.shares(start_s, stop_s)
        # Of two who speak at once it is the one who was speaking, so that a word of the other does not tear a sentence apart.
        mine = before if before in there and there[before] >= max(there.values()) - 1e-6 else _longest(there)
        mine = mine or timeline.nearest(start_s, stop_s) or before
        words.append(word | {"speaker": mine})
        if mine is not None:
            spoken[mine] += stop_s - start_s
        before = mine
    return segment | {"speaker": _longest(spoken) or most, "words": words}


def _longest(shares: Mapping[str, float]) -> str | None:
    """Who has most; the first by name of those who have the same."""
    return min(shares, key=lambda name: (-shares[name], name)) if shares else None
