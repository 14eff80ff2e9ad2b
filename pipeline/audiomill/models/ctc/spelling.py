"""Words -> the tokens that write them: of lexicons and hotwords."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.errors import InputError
from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.models.ctc.ngram import local_file
from audiomill.models.ctc.word_pieces import spelling
from audiomill.storage.fs import Place
from audiomill.text.encodings import UnknownEncoding, decoded, decoded_lines

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
        for symbols in spellings:
            state = ROOT
            for at, symbol in enumerate(symbols, 1):
                following = children.get((state, symbol))
                if following is None:
                    following = children[(state, symbol)] = len(depth)
                    depth.append(at)
                    ends.append(False)
                    shortest.append(len(symbols))
                    last.append(symbol if isinstance(symbol, int) else -1)
                shortest[following] = min(shortest[following], len(symbols))
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


def user_lines(content: bytes, option: str) -> list[str]:
    """Lines of a file that a user wrote, in whatever encoding can be told.

    Raises:
        InputError: none can.
    """
    try:
        return decoded_lines(decoded(content).text)
    except UnknownEncoding as unknown:
        raise InputError(f"{option}: {unknown}; convert it to UTF-8") from None


def pieces_of(vocabulary: CtcVocabulary) -> dict[str, int] | None:
    """Number of each piece, where tokens are pieces of words and spellings therefore letters; else None."""
    if not vocabulary.mark:
        return None
    others = {vocabulary.tokens[vocabulary.blank], *vocabulary.special, ""}
    return {token: at for at, token in enumerate(vocabulary.tokens) if token not in others}


def spelled(phrase: str, vocabulary: CtcVocabulary, option: str) -> list[int] | str:
    """Token numbers of a word or of several, the delimiter between them; in the case that the vocabulary has. Where tokens
    are pieces of words, the letters that pieces write, so that any pieces may write them.

    Raises:
        InputError: a letter that the model does not have.
    """
    if vocabulary.mark:
        return _as_pieces_write(phrase, vocabulary, option)
    number = {token: at for at, token in enumerate(vocabulary.tokens)}
    results: list[int] = []
    for word in phrase.split():
        if results and vocabulary.delimiter in number and not vocabulary.spaced:
            results.append(number[vocabulary.delimiter])
        symbols = [word] if vocabulary.spaced else list(word)
        for symbol in symbols:
            token = next((number[each] for each in (symbol, symbol.upper(), symbol.lower()) if each in number), None)
            if token is None:
                raise InputError(f"{option}: {phrase!r} has {symbol!r}, which the model's vocabulary lacks; respell it")
            results.append(token)
    if not results:
        raise InputError(f"{option}: expected words, got {phrase!r}")
    return results


def _as_pieces_write(phrase: str, vocabulary: CtcVocabulary, option: str) -> str:
    words = phrase.split()
    if not words:
        raise InputError(f"{option}: expected words, got {phrase!r}")
    known = {letter for token in pieces_of(vocabulary) or () for letter in token}
    for each in (words, [word.lower() for word in words], [word.upper() for word in words]):
        result = spelling(each, vocabulary.mark)
        if set(result) <= known:
            return result
    missing = next(
        letter
        for letter in phrase.replace(" ", "")
        if not any(set(spelling([each], vocabulary.mark)) <= known for each in (letter, letter.lower(), letter.upper()))
    )
    raise InputError(f"{option}: {phrase!r} has {missing!r}, which the model's vocabulary lacks; respell it")


def words_of_lexicon(path: Path, vocabulary: CtcVocabulary) -> Iterator[list[int] | str]:
    """Spellings of a lexicon: a word a line, or a word and its tokens with blanks between (flashlight's form).

    Raises:
        InputError: no words, or a token that the model does not have.
    """
    number = {token: at for at, token in enumerate(vocabulary.tokens)}
    num_words = 0
    for line in user_lines(path.read_bytes(), f"--lexicon {path.name}"):
        word, tokens = _word_and_tokens(line, vocabulary, number)
        if not word.strip():
            continue
        num_words += 1
        if not tokens.strip():
            yield spelled(word.strip(), vocabulary, f"--lexicon {path.name}")
            continue
        if vocabulary.mark:  # pieces of a spelling write what the word itself says
            yield spelled(word.strip(), vocabulary, f"--lexicon {path.name}")
            continue
        names = [name for name in tokens.split() if name != vocabulary.delimiter]
        unknown = [name for name in names if name not in number]
        if unknown:
            raise InputError(f"--lexicon {path.name}: {word!r} is spelled with {unknown[0]!r}, which the model lacks")
        yield [number[name] for name in names]
    if not num_words:
        raise InputError(f"--lexicon {path.name}: expected a word a line, got none")


def _word_and_tokens(line: str, vocabulary: CtcVocabulary, number: dict[str, int]) -> tuple[str, str]:
    """A tab says where the tokens begin; without one, what follows the word is its spelling where it spells it (or, for
    phonemes, where it is nothing but tokens)."""
    word, tab, tokens = line.partition("\t")
    if tab or len(line.split()) < 2:
        return word, tokens
    word, *names = line.split()
    letters = [name for name in names if name != vocabulary.delimiter]
    spells = "".join(letters).strip("\u2581").casefold() == word.casefold()
    if letters and all(name in number for name in letters) and (spells or vocabulary.spaced):
        return word, " ".join(names)
    return line, ""


def phrases(text: str, options: dict[str, Any]) -> list[str]:
    """Hotwords by comma, or from a file with one a line (`@FILE`)."""
    if text.startswith("@"):
        lines = user_lines(local_file(Place(text[1:], options), "--hotwords").read_bytes(), f"--hotwords {text}")
        return [line.strip() for line in lines if line.strip()]
    return [phrase.strip() for phrase in text.split(",") if phrase.strip()]
