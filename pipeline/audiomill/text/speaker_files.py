"""Who speaks when, in the formats of other tools: RTTM, CTM and Praat's TextGrid.

Sources: NIST RT-09 evaluation plan, appendix A (RTTM); NIST sclite, ctm; Praat manual, TextGrid file formats (long text).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOBODY = "unknown"
LEAST_MS = 10
"""Of a word in a tier: some have no length."""


def rttm(name: str, turns: Iterable[Mapping[str, Any]]) -> str:
    """One line a turn.

    Args:
        name: of the file, without blanks.
        turns: rows of the turns table.
    """
    rows = [
        f"SPEAKER {name} {(turn['channel'] or 0) + 1} {turn['start_s']:.3f} {turn['stop_s'] - turn['start_s']:.3f} "
        f"<NA> <NA> {'_'.join(turn['speaker'].split())} {turn['confidence']:.4f} <NA>\n"
        for turn in turns
    ]
    return "".join(rows)


def ctm(name: str, segments: Iterable[Mapping[str, Any]]) -> str:
    """One line a word: file, channel, start, length, word, confidence.

    Args:
        name: of the file, without blanks.
        segments: rows of the segments table.
    """
    words = [(segment["channel"] or 0, word) for segment in segments for word in segment["words"] or ()]
    ordered = sorted(words, key=lambda pair: (pair[0], pair[1]["start_s"]))
    rows = []
    for channel, word in ordered:
        text = "".join(word["word"].split())
        if text:
            length = max(0.0, word["stop_s"] - word["start_s"])
            rows.append(f"{name} {channel + 1} {word['start_s']:.3f} {length:.3f} {text} {_sureness(word)}\n")
    return "".join(rows)


def _sureness(word: Mapping[str, Any]) -> str:
    value = word["probability"] if word["confidence"] is None else word["confidence"]
    return "NA" if value is None else f"{value:.4f}"


_Interval = tuple[float, float, str]
"""Begin, end and text; seconds."""
Written = tuple[int, int, str]
"""The same in milliseconds, as a TextGrid has them."""


def textgrid(seconds: float, turns: Sequence[Mapping[str, Any]], segments: Sequence[Mapping[str, Any]]) -> str:
    """A tier of turns and one of words for each speaker; Praat wants tiers without gaps and overlaps, so each has its own.

    Args:
        seconds: where the recording ends.
        turns: rows of the turns table; none: one speaker, unknown.
        segments: rows of the segments table.
    """
    tiers: defaultdict[str, list[_Interval]] = defaultdict(list)
    for turn in turns:
        tiers[turn["speaker"]].append((turn["start_s"], turn["stop_s"], turn["speaker"]))
    for segment in segments:
        nobody = NOBODY if segment["channel"] is None else f"channel {segment['channel']}"
        if segment["words"] is None and segment["text"]:
            name = f"{segment['speaker'] or nobody} words"
            tiers[name].append((segment["start_s"], segment["stop_s"], segment["text"]))
        for word in segment["words"] or ():
            name = f"{word['speaker'] or nobody} words"
            tiers[name].append((word["start_s"], word["stop_s"], word["word"].strip()))
    ends = [stop for some in tiers.values() for _, stop, _ in some]
    end = max(_ms(each) for each in [seconds, *ends])
    parts = [
        _tier(number, name, _filled(some, end), end) for number, (name, some) in enumerate(sorted(tiers.items()), 1)
    ]
    head = f'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = {end / 1000:.3f}\n'
    return head + f"tiers? <exists>\nsize = {len(parts)}\nitem []:\n" + "".join(parts)


def _ms(seconds: float) -> int:
    return int(1000 * seconds + 0.5)


def _filled(intervals: Iterable[_Interval], end: int) -> list[Written]:
    """With empty ones between them; what overlaps begins where the one before it ends. `end`: milliseconds."""
    writtens: list[Written] = []
    at = 0
    for start_s, stop_s, text in sorted(intervals):
        start = max(_ms(start_s), at)
        stop = min(max(_ms(stop_s), start + LEAST_MS), end)
        if stop <= start:
            continue
        if start > at:
            writtens.append((at, start, ""))
        writtens.append((start, stop, text))
        at = stop
    if at < end or not writtens:
        writtens.append((at, end, ""))
    return writtens


def _tier(number: int, name: str, intervals: Sequence[Written], end: int) -> str:
    lines = [
        f"    item [{number}]:",
        '        class = "IntervalTier"',
        f"        name = {_quoted(name)}",
        "        xmin = 0",
        f"        xmax = {end / 1000:.3f}",
        f"        intervals: size = {len(intervals)}",
    ]
    for at, (start, stop, text) in enumerate(intervals, 1):
        lines += [
            f"        intervals [{at}]:",
            f"            xmin = {start / 1000:.3f}",
            f"            xmax = {stop / 1000:.3f}",
            f"            text = {_quoted(text)}",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""').replace("\n", " ") + '"'
