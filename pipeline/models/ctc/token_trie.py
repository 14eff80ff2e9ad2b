"""Spellings as a tree over tokens, followed for whole arrays at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

ROOT, DEAD = 0, 1
"""At a word's start; off every spelling, until the next word starts."""


class TokenTrie:
    """`is_word`: by state, whether a spelling ends here; `share`: how much of the shortest spelling behind it is written;
    `last_token`: that led to it.

    Args:
        spellings: token numbers of each.
        size: of the vocabulary.
    """

    def __init__(self, spellings: Iterable[Sequence[int]], size: int) -> None:
        self._size = size
        children: dict[tuple[int, int], int] = {}
        depth, ends, shortest, last = [0, 0], [False, False], [1, 1], [-1, -1]
        for spelling in spellings:
            state = ROOT
            for at, token in enumerate(spelling, 1):
                following = children.get((state, token))
                if following is None:
                    following = children[(state, token)] = len(depth)
                    depth.append(at)
                    ends.append(False)
                    shortest.append(len(spelling))
                    last.append(token)
                shortest[following] = min(shortest[following], len(spelling))
                state = following
            ends[state] = state != ROOT
        keys = np.array([state * size + token for state, token in children], np.int64)
        order = np.argsort(keys)
        self._keys, self._behind = keys[order], np.array(list(children.values()), np.int64)[order]
        self.is_word = np.array(ends)
        self.last_token = np.array(last)
        self.share = np.minimum(1.0, np.array(depth) / np.array(shortest))

    def follow(self, states: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """States behind the tokens; `DEAD` where no spelling goes on."""
        if not len(self._keys):
            return np.full(states.shape, DEAD, np.int64)
        wanted = states * self._size + tokens
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        found: NDArray[np.int64] = np.where(self._keys[at] == wanted, self._behind[at], DEAD)
        return found
