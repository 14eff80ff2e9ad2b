"""Special tokens of a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

MAX_INITIAL_TIMESTAMP = 50
"""The first timestamp is at most this many steps (1 s) into the window."""


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """What the engine must know of a vocabulary.

    Attributes:
        size: of the vocabulary.
        start: behind which `no_speech` is looked at.
        end: of a text.
        no_speech: whose probability behind `start` says that nobody speaks; None where there is none.
        first_timestamp: tokens from here on are timestamps; `size` where there are none.
        suppress, begin_suppress: tokens that are never chosen, and never first.
    """

    size: int
    start: int
    end: int
    no_speech: int | None
    first_timestamp: int
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()
    max_initial_timestamp: int = MAX_INITIAL_TIMESTAMP
