"""Text normalisation before scoring: as the Whisper paper does it, but no language loses its vowels.

Source: Radford et al. 2022, arXiv:2212.04356, appendix C, through the `whisper-normalizer` package.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from audiomill.text.scripts import (
    base_language,
    lowered,
    units,
    with_plain_digits,
    with_plain_signs,
    without_optional_marks,
)


class Text(NamedTuple):
    """What a clip says, and in which language, where that is known."""

    text: str
    language: str | None


ENGLISH = ("en", "eng", "english")
NO_TAG = re.compile(r"<(?![A-Za-z/|])")
"""Less than: Whisper's normaliser leaves out what stands between `<` and `>`."""


@cache
def normalizer(language: str | None) -> Callable[[str], str]:
    """One sign for each that has several, then the Whisper English normaliser for English. For everything else its basic
    one, which keeps combining marks here (Whisper's own takes the vowels from Hindi), small letters as the language writes them, digits of all scripts as 0 to
    9, and no vowel points of Arabic and Hebrew.

    Args:
        language: code such as "en" or "en-US"; None counts as not English.
    """
    if base_language(language) in ENGLISH:
        from whisper_normalizer.english import EnglishTextNormalizer

        english: Callable[[str], str] = EnglishTextNormalizer()
        return lambda text: english(NO_TAG.sub(" ", with_plain_signs(text)))
    from whisper_normalizer.basic import BasicTextNormalizer

    basic = BasicTextNormalizer(preserve_marks=True)

    def clean(text: str) -> str:
        small = lowered(without_optional_marks(with_plain_signs(text)), language)
        return unicodedata.normalize("NFC", with_plain_digits(basic(small).casefold()))

    return clean


def units_of(text: str, language: str | None) -> list[str]:
    """A text's units after normalisation, see `audiomill.text.scripts.units`."""
    return units(normalizer(language)(text))
