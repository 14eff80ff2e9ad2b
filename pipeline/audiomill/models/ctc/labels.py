"""Texts -> CTC tokens: the form that a model writes, the vocabulary, and labels that cannot be learnt, with the reason."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.errors import UsageError
from audiomill.models.ctc.greedy_decoding import CtcVocabulary
from audiomill.models.ctc.vocabulary import ctc_vocabulary
from audiomill.text.normalize import Text
from audiomill.text.scripts import lowered, uppered

PAD, UNKNOWN, DELIMITER = "<pad>", "<unk>", "|"
_APOSTROPHES = "'’ʼ"
MAX_NEW_TOKENS = 20_000
"""More kinds of characters than any script has: the labels are something else."""


@dataclass(frozen=True)
class LabelForm:
    """How a text becomes tokens. `is_upper`: the vocabulary has capitals only; `by_token`: blanks separate tokens."""

    vocabulary: CtcVocabulary
    by_token: bool
    keeps_form: bool
    is_upper: bool

    def save(self, folder: Path) -> None:
        """The files that Hugging Face reads it from."""
        save_tokenizer(self.vocabulary, folder)

    def tokens(self, text: str, language: str | None) -> list[int] | str:
        """Token numbers of a text, or the reason why there are none: empty_text or unknown_characters."""
        symbols = symbols_of(text, self.by_token, self.keeps_form, language)
        if not symbols:
            return "empty_text"
        number = {token: index for index, token in enumerate(self.vocabulary.tokens)}
        results = []
        if self.is_upper:  # one letter may have two capitals: ß
            capitals = [uppered(symbol, language) for symbol in symbols]
            symbols = capitals if self.by_token else list("".join(capitals))
        for symbol in symbols:
            each = self.vocabulary.delimiter if symbol in (" ", DELIMITER) else symbol
            if each not in number:
                return "unknown_characters"
            results.append(number[each])
        return results


@dataclass(frozen=True)
class PieceForm:
    """The same with pieces of words. `tokenizer`: of transformers; its padding is the blank."""

    vocabulary: CtcVocabulary
    tokenizer: Any
    keeps_form: bool

    def save(self, folder: Path) -> None:
        """The files that Hugging Face reads it from."""
        self.tokenizer.save_pretrained(folder)

    def tokens(self, text: str, language: str | None) -> list[int] | str:
        """See `LabelForm`."""
        form = written_form(text, self.keeps_form, language)
        if not any(character.isalnum() for character in form):
            return "empty_text"
        result: list[int] = self.tokenizer(form, add_special_tokens=False)["input_ids"]
        return "unknown_characters" if self.tokenizer.unk_token_id in result else result


def piece_form(tokenizer: Any, keeps_form: bool) -> PieceForm:
    """Of a tokenizer whose padding is the blank."""
    return PieceForm(ctc_vocabulary(tokenizer, None, None), tokenizer, keeps_form)


def written_form(text: str, keeps_form: bool, language: str | None) -> str:
    """A text as it is learnt: as it is but for blanks, or in plain letters."""
    return " ".join((text if keeps_form else plain_letters(text, language)).split())


def symbols_of(text: str, by_token: bool, keeps_form: bool, language: str | None) -> list[str]:
    """A text as the symbols that tokens stand for; a blank stands between words."""
    if by_token:
        return text.split()
    return list(written_form(text, keeps_form, language))


def plain_letters(text: str, language: str | None = None) -> str:
    """Small letters as the language writes them, composed characters, no punctuation but apostrophes inside words.

    >>> plain_letters("It’s  ten—o'clock, Zoë!")
    "it's ten o'clock zoë"
    """
    text = lowered(unicodedata.normalize("NFC", text), language)
    letters = []
    for at, character in enumerate(text):
        inside = 0 < at < len(text) - 1 and text[at - 1].isalnum() and text[at + 1].isalnum()
        if character in _APOSTROPHES and inside:
            letters.append("'")
        else:
            letters.append(" " if unicodedata.category(character)[0] in "PSCZ" else character)
    return " ".join("".join(letters).split())


def label_vocabulary(texts: Iterable[Text], by_token: bool, keeps_form: bool) -> CtcVocabulary:
    """The tokens that the labels need, sorted.

    Raises:
        UsageError: no label has a symbol, or they have absurdly many kinds.
    """
    counts = Counter(symbol for text, language in texts for symbol in symbols_of(text, by_token, keeps_form, language))
    if not counts:
        raise UsageError("no label has a letter in it: expected text beside the audio or in a manifest's text column")
    if len(counts) > MAX_NEW_TOKENS:
        raise UsageError(f"the labels have {len(counts)} kinds of tokens; expected at most {MAX_NEW_TOKENS}")
    symbols = sorted(counts.keys() - {" ", PAD, UNKNOWN, DELIMITER})
    tokens = (PAD, UNKNOWN, DELIMITER, *symbols)
    return CtcVocabulary(tokens, blank=0, delimiter=DELIMITER, spaced=by_token, special=(UNKNOWN,))


def save_tokenizer(vocabulary: CtcVocabulary, folder: Path) -> None:
    """vocab.json and the settings with which Hugging Face reads it."""
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2PhonemeCTCTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.json"
    path.write_text(json.dumps({token: at for at, token in enumerate(vocabulary.tokens)}, ensure_ascii=False))
    special = {"pad_token": PAD, "unk_token": UNKNOWN, "bos_token": None, "eos_token": None}
    tokenizer: Any
    if vocabulary.spaced:
        tokenizer = Wav2Vec2PhonemeCTCTokenizer(
            str(path),
            **special,
            do_phonemize=False,
            **{"phone_delimiter_token": " ", "word_delimiter_token": DELIMITER},
        )
    else:
        tokenizer = Wav2Vec2CTCTokenizer(str(path), **special, word_delimiter_token=DELIMITER)
    tokenizer.save_pretrained(folder)


def form_of(vocabulary: CtcVocabulary, keeps_form: bool) -> LabelForm:
    """How texts are written with a vocabulary: in capitals, where it has no small letters."""
    letters = [token for token in vocabulary.tokens if len(token) == 1 and token.isalpha()]
    is_upper = any(letter.isupper() for letter in letters) and not any(each.islower() for each in letters)
    return LabelForm(vocabulary, vocabulary.spaced, keeps_form, is_upper)


def num_frames_needed(tokens: Sequence[int]) -> int:
    """Fewest frames that CTC can write the tokens in: one each, and a blank between equal neighbours."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def best_path(labels_F: NDArray[Any], vocabulary: CtcVocabulary) -> str:
    """Text of the best label of every frame."""
    path_F = labels_F[np.flatnonzero(np.diff(labels_F, prepend=-1))]
    tokens = [vocabulary.tokens[label] for label in path_F.tolist() if label != vocabulary.blank]
    if vocabulary.mark:
        return vocabulary.written("".join(token for token in tokens if token not in vocabulary.special))
    between = " " if vocabulary.spaced else ""
    return " ".join(between.join(" " if token == vocabulary.delimiter else token for token in tokens).split())
