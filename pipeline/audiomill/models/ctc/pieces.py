"""Tokens that are pieces of words -> text. SentencePiece marks a word's start with `▁`, byte-level BPE with `Ġ`.

Source: Kudo and Richardson 2018, "SentencePiece" (arXiv:1808.06226); the table of bytes is GPT-2's `bytes_to_unicode`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

PIECE, BYTE_LEVEL = "\u2581", "\u0120"
"""Marks at a word's start: of SentencePiece, and of byte-level BPE, whose characters stand for a byte each."""
ONE_BYTE = re.compile(r"(?:<0x[0-9A-F]{2}>)+")
"""Bytes of a letter that SentencePiece has no piece for, spelled as tokens."""
UNKNOWN_BYTES = "replace"


def mark_of(tokens: Iterable[str]) -> str:
    """How the tokens of a vocabulary mark a word's start; empty where none does."""
    firsts = {token[:1] for token in tokens}
    return next((mark for mark in (PIECE, BYTE_LEVEL) if mark in firsts), "")


def join_pieces(pieces: str, mark: str) -> str:
    """The text that pieces write, end to end; blanks around it are left out.

    >>> written("\u2581new\u2581york", "\u2581")
    'new york'
    """
    if mark == BYTE_LEVEL:
        byte = _byte_of()
        result = bytes(byte[character] for character in pieces if character in byte)
        return result.decode("utf-8", UNKNOWN_BYTES).strip()
    if mark == PIECE:
        return ONE_BYTE.sub(_letters, pieces).replace(PIECE, " ").strip()
    return pieces


def spelling(words: Iterable[str], mark: str) -> str:
    """Words as pieces write them, before they are cut into pieces.

    >>> spelling(["new", "york"], "\u2581")
    '▁new▁york'
    """
    if mark != BYTE_LEVEL:
        return "".join(mark + word for word in words)
    character = {byte: each for each, byte in _byte_of().items()}
    return "".join(BYTE_LEVEL + "".join(character[byte] for byte in word.encode()) for word in words)


def _letters(spelled: re.Match[str]) -> str:
    return bytes.fromhex(spelled[0].replace("<0x", "").replace(">", "")).decode("utf-8", UNKNOWN_BYTES)


@cache
def _byte_of() -> dict[str, int]:
    """Printable characters stand for themselves, the other bytes for characters from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}
