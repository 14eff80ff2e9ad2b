"""Subtitles: timed texts -> SRT and WebVTT cues that fit a screen.

Source: SubRip as players read it; W3C WebVTT, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from audiomill.text.scripts import CLOSING, SENTENCE_ENDS, blanks_between, glues, units, width

LINE_WIDTH = 42
"""Columns, the usual limit of broadcasters; a letter of Chinese or Japanese takes two."""
MAX_LINES = 2
MAX_CUE_S = 7.0


class Cue(NamedTuple):
    """Text shown from `start_s` to `stop_s`; `speaker`: who says it, where that is known."""

    start_s: float
    stop_s: float
    text: str
    speaker: str | None = None


def cues_of_words(words: Sequence[Cue], text: str) -> list[Cue]:
    """Joins timed words into cues of readable size and one speaker, broken at pauses and ends of sentences where there are any.

    Args:
        words: in time order; empty ones are left out.
        text: that they are the words of: it says where blanks are.
    """
    words = [word._replace(text=word.text.strip()) for word in words if word.text.strip()]
    cues: list[Cue] = []
    for word, blank in zip(words, blanks_between([word.text for word in words], text), strict=True):
        last = cues[-1] if cues else None
        # a piece of a word, or a sign that closes, stays with what stands before it
        if last is not None and _fits(last, word, blank, MAX_CUE_S):
            cues[-1] = Cue(last.start_s, word.stop_s, f"{last.text}{blank}{word.text}", last.speaker)
        else:
            cues.append(word)
    return cues


def _fits(cue: Cue, word: Cue, blank: str, max_s: float) -> bool:
    joined = f"{cue.text}{blank}{word.text}"
    if word.speaker != cue.speaker:
        return False
    is_short = width(joined) <= MAX_LINES * LINE_WIDTH and word.stop_s - cue.start_s <= max_s
    if word.text[0] in CLOSING:
        return is_short
    return is_short and word.start_s - cue.stop_s < 1.0 and not cue.text.endswith(SENTENCE_ENDS)


def cues_of_text(cue: Cue) -> list[Cue]:
    """A text without times of its words, as cues of readable size; its time is shared out by width."""
    pieces = units(cue.text)
    total = sum(width(piece) for piece in pieces)
    if not total:
        return []
    step, at, words = (cue.stop_s - cue.start_s) / total, cue.start_s, []
    for piece in pieces:
        stop = at + step * width(piece)
        words.append(Cue(at, stop, piece, cue.speaker))
        at = stop
    return cues_of_words(words, cue.text)


def in_lines(text: str) -> str:
    """A text in two lines where one would be too wide, as even as its blanks (or its letters, without any) allow."""
    text = " ".join(text.split())
    if width(text) <= LINE_WIDTH:
        return text
    places = [
        at for at, each in enumerate(text) if each == " " or (at and glues(text[at - 1], each) and each not in CLOSING)
    ]
    if not places:
        return text
    at = min(places, key=lambda place: abs(width(text[:place]) - width(text[place:])))
    return f"{text[:at]}\n{text[at:].lstrip()}"


def srt(cues: Iterable[Cue]) -> str:
    """One SubRip file."""
    blocks = [
        f"{number}\n{_stamp(cue.start_s, ',')} --> {_stamp(cue.stop_s, ',')}\n{in_lines(_speaker_prefix(cue))}\n"
        for number, cue in enumerate(cues, 1)
    ]
    return "\n".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """One WebVTT file."""
    blocks = [
        f"{_stamp(cue.start_s, '.')} --> {_stamp(cue.stop_s, '.')}\n{_voice(cue)}{_escaped(in_lines(cue.text))}\n"
        for cue in cues
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _speaker_prefix(cue: Cue) -> str:
    """SubRip has no place for a name but the text."""
    return cue.text if cue.speaker is None else f"{cue.speaker}: {cue.text}"


def _voice(cue: Cue) -> str:
    """WebVTT's voice span, which players may colour."""
    return "" if cue.speaker is None else f"<v {_escaped(cue.speaker)}>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _stamp(seconds: float, mark: str) -> str:
    """`3661.5` -> `01:01:01,500`."""
    whole = int(seconds * 1000 + 0.5)
    return f"{whole // 3_600_000:02d}:{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d}{mark}{whole % 1000:03d}"
