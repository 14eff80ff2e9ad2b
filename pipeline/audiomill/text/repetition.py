"""How much a text repeats itself."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

MAX_REPEATED_WORDS = 8


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of its zlib form, as Whisper computes it; 0 for empty text."""
    encoded = text.encode()
    return round(len(encoded) / len(zlib.compress(encoded)), 4) if encoded else 0.0


def num_repeats(words: Sequence[str]) -> int:
    """How often the most repeated run of up to eight words stands in a row; 1 for no repetition."""
    most = 1 if words else 0
    for size in range(1, MAX_REPEATED_WORDS + 1):
        count = 0  # words in a row that equal the one `size` before
        for at in range(size, len(words)):
            count = count + 1 if words[at] == words[at - size] else 0
            most = max(most, 1 + count // size)
    return most
