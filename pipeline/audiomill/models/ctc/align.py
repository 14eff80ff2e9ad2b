"""Words of a known text -> when each was said, by the frames of a CTC model (forced alignment).

F frames, V vocabulary, S states: every token between two blanks.
Source: Graves et al. 2006 section 4.1 (the trellis), its most probable path (Viterbi 1967). What the vocabulary cannot
write, such as figures, is a wildcard that stands for any token but the blank.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.models.ctc.word_pieces import spelling

WILDCARD = -1
_NEVER = -1e30


def word_frames(
    words: Sequence[str], logprobs_FV: NDArray[np.float32], vocabulary: CtcVocabulary
) -> list[tuple[int, int]] | None:
    """First frame of each word, and the frame behind its last one.

    Args:
        words: in order.
        logprobs_FV: natural logarithms of the model's probabilities.
        vocabulary: of the model.

    Returns:
        Half-open spans, starts not falling; None if there are fewer frames than tokens.
    """
    spans = word_spans(words, logprobs_FV, vocabulary)
    return None if spans is None else [(span.first, span.stop) for span in spans]


class WordSpan(NamedTuple):
    """Frames `[first, stop)` of a word; `logprob`: of its tokens along the best path, mean over its tokens' frames."""

    first: int
    stop: int
    logprob: float


def word_spans(
    words: Sequence[str], logprobs_FV: NDArray[np.float32], vocabulary: CtcVocabulary
) -> list[WordSpan] | None:
    """As `word_frames`, with how probable each word is."""
    tokens, owner = _tokens(words, vocabulary)
    if not tokens or len(tokens) + sum(a == b for a, b in pairwise(tokens)) > len(logprobs_FV):
        return None
    return token_spans(tokens, owner, logprobs_FV, vocabulary.blank)


def token_spans(
    tokens: Sequence[int], owner: Sequence[int], logprobs_FV: NDArray[np.float32], blank: int
) -> list[WordSpan]:
    """Spans of the words that tokens belong to.

    Args:
        tokens: at least one; with the blanks between equal ones no more than there are frames.
        owner: number of each token's word, every word in turn from 0; -1 for what stands between words.
        logprobs_FV: natural logarithms of the model's probabilities.
        blank: its number.
    """
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    emitted_FS = _emitted(states, logprobs_FV, blank)
    path_F = _best_path(emitted_FS, states)
    along_F = emitted_FS[np.arange(len(path_F)), path_F]
    spans = []
    for word in range(max(owner) + 1):
        own_items = [2 * at + 1 for at, each in enumerate(owner) if each == word]
        at = np.flatnonzero((path_F >= own_items[0]) & (path_F <= own_items[-1]))
        spoken = at[path_F[at] % 2 == 1]
        spans.append(WordSpan(int(at[0]), int(at[-1]) + 1, float(along_F[spoken].mean())))
    return spans


def _tokens(words: Sequence[str], vocabulary: CtcVocabulary) -> tuple[list[int], list[int]]:
    """Token numbers of the text, and the word that each belongs to (-1: a delimiter between words)."""
    number = {token: index for index, token in enumerate(vocabulary.tokens)}
    tokens: list[int] = []
    owner: list[int] = []
    for index, word in enumerate(words):
        if vocabulary.mark:
            pieces = _pieces(word, number, vocabulary.mark)
            tokens += pieces
            owner += [index] * len(pieces)
            continue
        if index and vocabulary.delimiter in number:
            tokens.append(number[vocabulary.delimiter])
            owner.append(-1)
        symbols = [word] if vocabulary.spaced else [c for c in word if unicodedata.category(c)[0] not in "PZ"]
        letters = [_letter(symbol, number) for symbol in symbols]
        joined = [t for at, t in enumerate(letters) if t != WILDCARD or at == 0 or letters[at - 1] != WILDCARD]
        tokens += joined or [WILDCARD]
        owner += [index] * (len(joined) or 1)
    return tokens, owner


def _pieces(word: str, number: dict[str, int], mark: str) -> list[int]:
    """The fewest pieces that write a word: as it is, without punctuation, in small letters; else the wildcard."""
    plain = "".join(c for c in word if unicodedata.category(c)[0] not in "PZ") or word
    for form in (word, plain, plain.lower(), plain.upper()):
        text = spelling([form], mark)
        best: list[list[int] | None] = [[], *[None] * len(text)]
        for stop in range(1, len(text) + 1):
            for start in range(stop):
                before, piece = best[start], number.get(text[start:stop])
                if before is None or piece is None:
                    continue
                known = best[stop]
                if known is None or len(before) + 1 < len(known):
                    best[stop] = [*before, piece]
        if (pieces := best[-1]) is not None:
            return pieces
    return [WILDCARD]


def _letter(letter: str, number: dict[str, int]) -> int:
    """As it is, in the other case, or without its marks; else the wildcard."""
    if letter in number:
        return number[letter]
    plain = unicodedata.normalize("NFD", letter)[0]
    for each in (letter.upper(), letter.lower(), plain.upper(), plain.lower()):
        if each in number:
            return number[each]
    return WILDCARD


def _emitted(states: NDArray[np.int64], logprobs_FV: NDArray[np.float32], blank: int) -> NDArray[np.float64]:
    """logprobs_FS: the wildcard is as probable as the best token that is no blank."""
    others = np.delete(logprobs_FV, blank, axis=1).max(1)
    result: NDArray[np.float64] = np.where(states == WILDCARD, others[:, None], logprobs_FV[:, states]).astype(float)
    return result


def _best_path(emitted_FS: NDArray[np.float64], states: NDArray[np.int64]) -> NDArray[np.int64]:
    """State of each frame."""
    num_frames, num_states = emitted_FS.shape
    # Two states on is allowed from token to another token, past the blank between them.
    can_skip = np.zeros(num_states, bool)
    can_skip[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(num_states, _NEVER)
    score[:2] = emitted_FS[0, :2]
    steps = np.zeros((num_frames, num_states), np.int8)
    ways = np.full((3, num_states), _NEVER)
    for frame in range(1, num_frames):
        ways[0], ways[1, 1:] = score, score[:-1]
        ways[2, 2:] = np.where(can_skip[2:], score[:-2], _NEVER)
        steps[frame] = ways.argmax(0)
        score = ways.max(0) + emitted_FS[frame]
    state = num_states - 1 if score[-1] >= score[-2] else num_states - 2
    path = np.zeros(num_frames, np.int64)
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state])
    return path
