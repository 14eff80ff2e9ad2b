"""Subtitles: timed texts -> SRT and WebVTT cues that fit a screen.

Source: SubRip as players read it; W3C WebVTT, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_CUE_CHARACTERS = 84
"""Two lines of 42, the usual limit of broadcasters."""
MAX_CUE_S = 7.0


class Cue(NamedTuple):
    """Text shown from `start_s` to `stop_s`."""

    start_s: float
    stop_s: float
    text: str


def cues_of_words(words: Sequence[Cue]) -> list[Cue]:
    """Joins timed words into cues of readable size, broken at pauses and punctuation where there are any."""
    cues: list[Cue] = []
    for word in words:
        last = cues[-1] if cues else None
        if last is not None and _fits(last, word):
            cues[-1] = Cue(last.start_s, word.stop_s, f"{last.text} {word.text}")
        else:
            cues.append(word)
    return cues


def _fits(cue: Cue, word: Cue) -> bool:
    is_short = len(cue.text) + 1 + len(word.text) <= MAX_CUE_CHARACTERS and word.stop_s - cue.start_s <= MAX_CUE_S
    return is_short and word.start_s - cue.stop_s < 1.0 and not cue.text.endswith((".", "?", "!"))


def srt(cues: Iterable[Cue]) -> str:
    """One SubRip file."""
    blocks = [
        f"{number}\n{_stamp(cue.start_s, ',')} --> {_stamp(cue.stop_s, ',')}\n{cue.text}\n"
        for number, cue in enumerate(cues, 1)
    ]
    return "\n".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """One WebVTT file."""
    blocks = [f"{_stamp(cue.start_s, '.')} --> {_stamp(cue.stop_s, '.')}\n{_escaped(cue.text)}\n" for cue in cues]
    return "\n".join(["WEBVTT\n", *blocks])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _stamp(seconds: float, mark: str) -> str:
    """`3661.5` -> `01:01:01,500`."""
    whole = int(seconds * 1000 + 0.5)
    return f"{whole // 3_600_000:02d}:{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d}{mark}{whole % 1000:03d}"
