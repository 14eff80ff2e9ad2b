"""What a prefix is worth besides its sound: words by a language model, a lexicon that allows, hotwords that draw.

B segments, K prefixes, C candidate tokens, S automata (lexicon, hotwords).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.models.ctc.spelling import DEAD, ROOT, TokenTrie

_NEVER = -np.inf


class FusionWeights(NamedTuple):
    """See `audiomill.config.text.SearchConfig`."""

    lm: float = 0.0
    word: float = 0.0
    unknown: float = 0.0
    hotword: float = 0.0


@dataclass(frozen=True, eq=False)
class Prefix:
    """What was written so far. `word`: the word being written; `lm`, `num_words`, `hotwords`: of the whole ones;
    `word_worth`: what ending the word now would add; `states`: of the automata."""

    parent: Prefix | None
    token: int
    word: str
    lm_state: int
    lm: float
    num_words: int
    num_unknown: int
    hotwords: int
    word_worth: float
    states: tuple[int, ...]

    def tokens(self) -> tuple[int, ...]:
        return self._tokens

    @cached_property
    def _tokens(self) -> tuple[int, ...]:
        results = []
        at: Prefix | None = self
        while at is not None and at.parent is not None:
            results.append(at.token)
            at = at.parent
        return tuple(results[::-1])


class Context:
    """Scores of prefixes. Words end at the delimiter, or where a piece begins the next one; in vocabularies of phonemes, and
    those that have neither, each token is a word.

    Args:
        vocabulary: of the model.
        weights: of what follows.
        lm: a language model over words, None for none.
        lexicon: spellings that may be written, None for any.
        hotwords: spellings that are favoured.
    """

    num_states = 2

    def __init__(
        self,
        vocabulary: CtcVocabulary,
        weights: FusionWeights,
        lm: Any | None = None,
        lexicon: TokenTrie | None = None,
        hotwords: TokenTrie | None = None,
    ) -> None:
        self._tokens, self._weights, self._lm, self._lexicon, self._hotwords = (
            vocabulary.tokens,
            weights,
            lm,
            lexicon,
            hotwords,
        )
        has_delimiter = vocabulary.delimiter in vocabulary.tokens and not vocabulary.spaced
        self._delimiter = vocabulary.tokens.index(vocabulary.delimiter) if has_delimiter else -9
        self._vocabulary = vocabulary
        self._begins = np.array([vocabulary.begins_word(token) for token in vocabulary.tokens])
        self._is_by_token = not has_delimiter and not vocabulary.mark
        self._lm_states: list[Any] = [None if lm is None else lm.start()]
        self._state_numbers: dict[Any, int] = {}
        self._followed: dict[tuple[int, str], tuple[float, bool, int]] = {}
        self.empty = Prefix(None, -2, "", 0, 0.0, 0, 0, 0, 0.0, (ROOT, ROOT))

    def token_scores(
        self,
        states_BKS: NDArray[np.int64],
        tokens_BC: NDArray[np.int64],
        word_worth_BK: NDArray[np.float64],
        prefixes: Sequence[Sequence[Prefix]],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """What each token adds to the worth of each prefix (never: it may not follow), and the automata behind it."""
        batch, size, _ = states_BKS.shape
        shape = (batch, size, tokens_BC.shape[1])
        delta = np.zeros(shape)
        is_end = np.broadcast_to((tokens_BC == self._delimiter)[:, None, :], shape)
        is_begin = np.broadcast_to((self._begins[tokens_BC] & (tokens_BC >= 0))[:, None, :], shape)
        if self._is_by_token:
            delta += self._scores_of_tokens(tokens_BC, prefixes)
        else:
            delta += np.where(is_end | is_begin, word_worth_BK[..., None], 0.0)
        behind = np.zeros((*shape, self.num_states), np.int64)
        for number, trie in enumerate((self._lexicon, self._hotwords)):
            if trie is None:
                continue
            states = np.broadcast_to(states_BKS[..., number][..., None], shape)
            following = trie.follow(states, np.broadcast_to(tokens_BC[:, None, :], shape))
            starts = trie.follow(np.full(shape, ROOT), np.broadcast_to(tokens_BC[:, None, :], shape))
            if number == 0:
                may_end = trie.is_word[states] | (states == ROOT)
                following = np.where(is_begin, np.where(may_end, starts, DEAD), following)
                between = is_end & may_end
                behind[..., number] = np.where(between, ROOT, following)
                delta[(following == DEAD) & ~between] = _NEVER
            else:
                is_anew = (following == DEAD) & (self._is_at_start(states) | is_begin)
                following = np.where(is_anew, starts, following)
                following = np.where(is_end & (following == DEAD), ROOT, following)
                behind[..., number] = following
                completes = (is_end | is_begin) & trie.is_word[states]
                before = np.where(completes, 0.0, trie.share[states])
                delta += self._weights.hotword * (trie.share[following] - before)
        return delta, behind

    def _is_at_start(self, states: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a word starts behind a state of the hotwords."""
        assert self._hotwords is not None, "there are hotwords"
        result: NDArray[np.bool_] = self._hotwords.last_token[states] == self._delimiter
        return result

    def extended(self, prefix: Prefix, token: int, states: tuple[int, ...]) -> Prefix:
        """A prefix with one more token."""
        if token == self._delimiter:
            return self._with_word(prefix, token, states)
        text = self._tokens[token]
        if self._is_by_token:
            return self._with_word(_replaced(prefix, word=text), token, states)
        before = self._with_word(prefix, token, states) if self._begins[token] else prefix
        word = text if self._begins[token] else prefix.word + text
        return _replaced(
            before, parent=prefix, token=token, word=word, word_worth=self._score(before.lm_state, word), states=states
        )

    def ended(self, prefix: Prefix) -> tuple[Prefix, float]:
        """The prefix as a whole text, and what its end adds; never: the lexicon does not allow it."""
        added = 0.0
        if self._lexicon is not None and prefix.states[0] != ROOT and not self._lexicon.is_word[prefix.states[0]]:
            return prefix, _NEVER
        if self._hotwords is not None and not self._hotwords.is_word[prefix.states[1]]:
            added -= self._weights.hotword * float(self._hotwords.share[prefix.states[1]])
        whole = prefix
        if prefix.word:
            whole = self._with_word(prefix, prefix.token, (ROOT, ROOT))
            whole = _replaced(whole, parent=prefix.parent)
            added += prefix.word_worth
        if self._lm is not None:
            end = float(self._lm.end(self._lm_states[whole.lm_state]))
            whole = _replaced(whole, lm=whole.lm + end)
            added += self._weights.lm * end
        return whole, added

    def _with_word(self, prefix: Prefix, token: int, states: tuple[int, ...]) -> Prefix:
        """The word being written is whole."""
        if not prefix.word:
            return Prefix(
                prefix,
                token,
                "",
                prefix.lm_state,
                prefix.lm,
                prefix.num_words,
                prefix.num_unknown,
                prefix.hotwords,
                0.0,
                states,
            )
        score, is_unknown, state = self._follow(prefix.lm_state, prefix.word)
        hit = self._hotwords is not None and bool(self._hotwords.is_word[prefix.states[1]])
        source = prefix.parent if token == prefix.token and self._is_by_token else prefix
        return Prefix(
            source, token, "", state, prefix.lm + score, prefix.num_words + 1,
            prefix.num_unknown + is_unknown, prefix.hotwords + hit, 0.0, states,
        )  # fmt: skip

    def _score(self, state: int, word: str) -> float:
        if not word:
            return 0.0
        score, is_unknown, _ = self._follow(state, word)
        return self._weights.lm * score + self._weights.word + self._weights.unknown * is_unknown

    def _follow(self, state: int, word: str) -> tuple[float, bool, int]:
        """Score of a word behind a state, whether the model does not know it, and the state behind it."""
        if self._lm is None:
            return 0.0, False, 0
        result = self._followed.get((state, word))
        if result is None:
            written = self._vocabulary.written(word)
            score, following = self._lm.next(self._lm_states[state], written)
            number = self._state_numbers.setdefault(following, len(self._lm_states))
            if number == len(self._lm_states):
                self._lm_states.append(following)
            result = self._followed[(state, word)] = (score, written not in self._lm, number)
        return result

    def _scores_of_tokens(
        self, tokens_BC: NDArray[np.int64], prefixes: Sequence[Sequence[Prefix]]
    ) -> NDArray[np.float64]:
        """Where each token is a word."""
        result = np.zeros((len(tokens_BC), len(prefixes[0]), tokens_BC.shape[1]))
        for row, tokens in enumerate(tokens_BC.tolist()):
            for number, prefix in enumerate(prefixes[row]):
                for column, token in enumerate(tokens[1:], 1):
                    result[row, number, column] = (
                        self._score(prefix.lm_state, self._tokens[token]) if token >= 0 else 0.0
                    )
        return result


def _replaced(prefix: Prefix, **changes: Any) -> Prefix:
    fields = {name: getattr(prefix, name) for name in Prefix.__dataclass_fields__}
    return Prefix(**{**fields, **changes})
