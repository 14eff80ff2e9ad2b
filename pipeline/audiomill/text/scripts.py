"""How languages are written: what counts as a word, a line, a capital letter. By Unicode's own properties (UAX 24, 29, 11)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import regex

UNSPACED = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Javanese}\p{Yi}]"
)
"""Scripts that put no blank between words."""
_MARKS = r"[\p{M}\u0e33\u0eb3\u30fc\u200c\u200d]"
"""Belong to the letter before them: also the vowel am of Thai and Lao, and the long vowel of katakana."""
_UNIT = regex.compile(rf"{UNSPACED}{_MARKS}*|(?:(?!{UNSPACED})\S)+")
_UNSPACED = regex.compile(UNSPACED)
_SPACED_LETTER = regex.compile(rf"(?!{UNSPACED})\p{{L}}")
_OPTIONAL_MARKS = regex.compile(r"(?<=[\p{Arabic}\p{Hebrew}]\p{M}*)\p{Mn}|\u0640")
_APOSTROPHES = "'\u2019\u2018\u201b\u02bc\u02bb\u02b9\u02c8\u00b4`\u2032\uff07\ua78c\u055a\u07f4\u07f5"
"""Signs that stand for one and the same: typographic ones, letters that look so, accents and primes in their place."""
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_PLAIN_SIGNS = str.maketrans(
    {
        **dict.fromkeys(_APOSTROPHES, "'"),
        **dict.fromkeys(DASHES, "-"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02", '"'),
        "\u2026": "...",
    }
)
_INVISIBLE = regex.compile(r"[\p{Cf}--[\u200c\u200d]]|(?<=[\p{Latin}\p{Cyrillic}\p{Greek}])[\u200c\u200d]", regex.V1)
"""Soft hyphens, marks of order and direction, joiners where letters do not join."""
_SCRIPT_NAMES = (
    "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Armenian", "Georgian", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya",
    "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Thai", "Lao", "Tibetan", "Myanmar", "Khmer", "Ethiopic", "Hangul", "Hiragana",
    "Katakana", "Bopomofo", "Han", "Mongolian", "Cherokee", "Thaana", "Syriac", "Javanese", "Balinese", "Sundanese", "Tifinagh", "Nko", "Yi",
)  # fmt: skip
_SCRIPTS = {name.lower(): regex.compile(rf"\p{{Script={name}}}") for name in _SCRIPT_NAMES}
TURKIC = ("tr", "az", "tur", "aze", "turkish", "azerbaijani")
"""Languages with a dotless i: I is its capital, İ that of i."""
CLOSING = "、。，．！？：；）］｝」』】〉》〕・ー…"
"""No line begins with one. Source: W3C, "Requirements for Japanese Text Layout", 3.1.7."""
SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "．", "…", "؟", "۔", "।", "॥", "။", "។", "։", "።")


def base_language(language: str | None) -> str:
    """`pt_BR` -> `pt`; empty where nothing is known."""
    return (language or "").lower().replace("_", "-").split("-")[0]


def with_plain_signs(text: str) -> str:
    """A text with one sign for each that has several, and without what cannot be seen.

    >>> with_plain_signs("don\\u2019t\\u00ad \\u2014 \\u02bbokina\\u2026")
    "don't - 'okina..."
    """
    seen: str = _INVISIBLE.sub("", text)
    return seen.translate(_PLAIN_SIGNS)


def units(text: str) -> list[str]:
    """What errors and repetitions are counted in: words, and single letters of scripts without blanks.

    >>> units("go to 東京 now")
    ['go', 'to', '東', '京', 'now']
    """
    result: list[str] = _UNIT.findall(text)
    return result


def is_unspaced(text: str) -> bool:
    """Whether most letters of a text are of scripts without blanks, so that its units are letters."""
    return len(_UNSPACED.findall(text)) > len(_SPACED_LETTER.findall(text))


def glues(before: str, after: str) -> bool:
    """Whether two pieces of text stand side by side without a blank."""
    last = before.rstrip(CLOSING)[-1:] or before[-1:]
    is_open = bool(_UNSPACED.match(last)) or last in CLOSING
    return is_open and bool(after) and (bool(_UNSPACED.match(after[0])) or after[0] in CLOSING)


def blanks_between(words: Sequence[str], text: str) -> list[str]:
    """What stands before each word of a text: a blank, or nothing. Words that are not in it are told by their scripts.

    Args:
        words: in the order of the text.
        text: that they are the words of.
    """
    result, at = [], 0
    for number, word in enumerate(words):
        place = text.find(word, at)
        if number == 0:
            result.append("")
        elif place >= 0:
            result.append(" " if any(each.isspace() for each in text[at:place]) else "")
        else:
            result.append("" if glues(words[number - 1], word) else " ")
        at = at if place < 0 else place + len(word)
    return result


def join_words(words: Sequence[str]) -> str:
    """Words as one text, with blanks where their scripts have them."""
    blanks = ["", *("" if glues(before, after) else " " for before, after in pairwise(words))]
    return "".join(blank + word for blank, word in zip(blanks, words, strict=False))


def lowered(text: str, language: str | None) -> str:
    """Small letters as the language writes them."""
    if base_language(language) in TURKIC:
        text = text.replace("İ", "i").replace("I", "ı")
    return text.lower().replace("i\u0307", "i")


def uppered(text: str, language: str | None) -> str:
    """Capitals as the language writes them."""
    if base_language(language) in TURKIC:
        text = text.replace("i", "İ")
    return text.upper()


def without_optional_marks(text: str) -> str:
    """Without the vowel points of Arabic and Hebrew and the tatweel, which most texts leave out."""
    plain: str = _OPTIONAL_MARKS.sub("", unicodedata.normalize("NFC", text))
    return plain


def with_plain_digits(text: str) -> str:
    """Decimal digits of every script as 0 to 9."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(each)) if each.isdecimal() else each for each in text)


def scripts_of(text: str) -> set[str]:
    """Scripts of the letters, by Unicode's names: `{"latin", "han"}`; other: one that is rare here."""
    scripts = set()
    for character in set(text):
        if character.isalpha():
            names = (name for name, pattern in _SCRIPTS.items() if pattern.match(character))
            name = next(names, None)
            if name is not None or not regex.match(r"[\p{Common}\p{Inherited}]", character):
                scripts.add(name or "other")
    return scripts


def width(text: str) -> int:
    """Columns on a screen: wide characters take two, combining marks none."""
    return sum(
        0 if unicodedata.category(each) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in text
    )
