"""Bytes of text files -> text: which encoding they are in, by one rule for every file that a user brings.

A byte order mark decides; else UTF-8 where all bytes are valid UTF-8, UTF-16 where every second byte is 0, and cp1252 (the
Western code page of Windows, which holds Latin-1) where few of the letters are outside ASCII. Anything else is refused: a
guess between the code pages of other scripts would be wrong too often. A line ends at LF or CRLF alone.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UTF_8, WESTERN = "utf-8", "cp1252"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MAX_MARK_BYTES, NUM_BYTES = 4, 256
MAX_FOREIGN_SHARE = 1 / 3
"""Of letters outside ASCII in a text of a Western language."""
MIN_ZERO_SHARE = 0.3
"""Of every second byte, in UTF-16 without a mark."""
CONTROLS = frozenset(range(32)) - {9, 10, 12, 13}


class UnknownEncoding(ValueError):
    """Bytes that are no text, or are in an encoding that cannot be told."""

    def __init__(self) -> None:
        super().__init__("expected text in UTF-8, UTF-16 or cp1252, got bytes in an encoding that cannot be told")


class _Decoded(NamedTuple):
    """A text. `note`: that it was not UTF-8, and what was taken; None where there is nothing to say."""

    text: str
    note: str | None = None


def decoded(content: bytes) -> _Decoded:
    """Text of a whole file.

    Raises:
        UnknownEncoding: it is none that is known.
    """
    encoding = encoding_of([content])
    try:
        return _Decoded(content.decode(encoding), note_of(encoding))
    except UnicodeDecodeError:
        raise UnknownEncoding from None


def decoded_lines(text: str) -> list[str]:
    """Lines without their ends. Other separators of Unicode are a part of a text."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def note_of(encoding: str) -> str | None:
    """What is said of an encoding that is not UTF-8."""
    return None if encoding in (UTF_8, "utf-8-sig") else f"read as {encoding}, it is not UTF-8"


def encoding_of(chunks: Iterable[bytes]) -> str:
    """Python's name of the encoding of a file.

    Args:
        chunks: its bytes in order, the first chunk not empty unless the file is.

    Raises:
        UnknownEncoding: it is none that is known.
    """
    counts = np.zeros((2, NUM_BYTES), np.int64)  # of each byte, at even and at odd places
    head, parity, is_utf_8 = b"", 0, True
    utf_8 = codecs.getincrementaldecoder(UTF_8)()
    for chunk in chunks:
        if not head:
            head = chunk[:MAX_MARK_BYTES]
            marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
            if marked is not None:
                return marked
        is_utf_8 = is_utf_8 and _decodes(utf_8, chunk)
        for first in (0, 1):
            values = np.frombuffer(chunk[first::2], np.uint8)
            counts[(parity + first) % 2] += np.bincount(values, minlength=NUM_BYTES)
        parity = (parity + len(chunk)) % 2
    is_utf_8 = is_utf_8 and _decodes(utf_8, b"", final=True)
    return _chosen(counts[0], counts[1], is_utf_8)


def _chosen(even: NDArray[np.int64], odd: NDArray[np.int64], is_utf_8: bool) -> str:
    for zeros, others, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros[0] > MIN_ZERO_SHARE * zeros.sum() and not others[0]:
            return name
    if is_utf_8:
        return UTF_8
    counts = {byte: count for byte, count in enumerate((even + odd).tolist()) if count}
    letters = {byte: bytes([byte]).decode(WESTERN, "ignore").isalpha() for byte in counts}
    foreign = sum(count for byte, count in counts.items() if byte >= 0x80 and letters[byte])
    total = sum(count for byte, count in counts.items() if letters[byte])
    has_undefined = any(not bytes([byte]).decode(WESTERN, "ignore") for byte in counts)
    if has_undefined or not CONTROLS.isdisjoint(counts) or foreign > MAX_FOREIGN_SHARE * max(total, 1):
        raise UnknownEncoding
    return WESTERN


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


TRANSCRIPT_SUFFIXES = ".trans.txt"


def transcript_lines(content: bytes) -> dict[str, str]:
    """Texts by the name at the beginning of each line.

    Raises:
        UnknownEncoding: see `audiomill.text.encodings`.
    """
    pairs: Iterable[list[str]] = (line.split(None, 1) for line in decoded_lines(decoded(content).text))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
