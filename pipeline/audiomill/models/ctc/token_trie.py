"""Spellings as a tree over tokens, followed for whole arrays at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT, DEAD = 0, 1
"""At a word's start; off every spelling, until the next word starts."""


class TokenTrie:
    """`is_word`: by state, whether a spelling ends here; `share`: how much of the shortest spelling behind it is written;
    `last_token`: symbol that led to it, where symbols are tokens.

    Args:
        spellings: symbols of each: token numbers, or the letters that tokens write, so that a spelling may be cut into
            tokens in any way.
        size: of the vocabulary.
        tokens: number of the token that writes some symbols in turn; None: symbols are token numbers.
    """

    def __init__(self, spellings: Iterable[Sequence[Any]], size: int, tokens: Mapping[str, int] | None = None) -> None:
        self._size = size
        children: dict[tuple[int, Hashable], int] = {}
        depth, ends, shortest, last = [0, 0], [False, False], [1, 1], [-1, -1]
        for spelling in spellings:
            state = ROOT
            for at, symbol in enumerate(spelling, 1):
                following = children.get((state, symbol))
                if following is None:
                    following = children[(state, symbol)] = len(depth)
                    depth.append(at)
                    ends.append(False)
                    shortest.append(len(spelling))
                    last.append(symbol if isinstance(symbol, int) else -1)
                shortest[following] = min(shortest[following], len(spelling))
                state = following
            ends[state] = state != ROOT
        steps: dict[tuple[int, Any], int] = dict(children) if tokens is None else _steps(children, tokens)
        keys = np.array([state * size + token for state, token in steps], np.int64)
        order = np.argsort(keys)
        self._keys, self._behind = keys[order], np.array(list(steps.values()), np.int64)[order]
        self.is_word = np.array(ends)
        self.last_token = np.array(last)
        self.share = np.minimum(1.0, np.array(depth) / np.array(shortest))

    def follow(self, states: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """States behind the tokens; `DEAD` where no spelling goes on."""
        if not len(self._keys):
            return np.full(states.shape, DEAD, np.int64)
        wanted = states * self._size + tokens
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        result: NDArray[np.int64] = np.where(self._keys[at] == wanted, self._behind[at], DEAD)
        return result


def _steps(children: Mapping[tuple[int, Hashable], int], tokens: Mapping[str, int]) -> dict[tuple[int, int], int]:
    """State behind each token at each state, for tokens that write several letters."""
    below: dict[int, list[tuple[str, int]]] = {}
    for (state, letter), following in children.items():
        below.setdefault(state, []).append((str(letter), following))
    longest = max(map(len, tokens), default=0)
    steps: dict[tuple[int, int], int] = {}
    for start in below:
        reached = [("", start)]
        for _ in range(longest):
            reached = [(text + letter, to) for text, at in reached for letter, to in below.get(at, ())]
            steps |= {(start, tokens[text]): to for text, to in reached if text in tokens}
    return steps
