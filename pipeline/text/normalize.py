"""Text normalisation before scoring, as the Whisper paper does it.

Source: Radford et al. 2022, arXiv:2212.04356, appendix C, through the `whisper-normalizer` package.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

ENGLISH = "en"


@cache
def normalizer(language: str | None) -> Callable[[str], str]:
    """The Whisper English normaliser for English, the basic one for everything else.

    Args:
        language: code such as "en" or "en-US"; None counts as not English.
    """
    if language is not None and language.lower().replace("_", "-").split("-")[0] in (ENGLISH, "english"):
        from whisper_normalizer.english import EnglishTextNormalizer

        english: Callable[[str], str] = EnglishTextNormalizer()
        return english
    from whisper_normalizer.basic import BasicTextNormalizer

    basic: Callable[[str], str] = BasicTextNormalizer()
    return basic
