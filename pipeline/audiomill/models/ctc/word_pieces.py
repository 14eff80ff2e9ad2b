"""Word pieces learned from the training text, the same ones every time.

Source: Kudo 2018 (arXiv:1804.10959). `sentencepiece` learns them: the trainer of `tokenizers` breaks ties by the order of a
hash map, so that a training that goes on after a kill would have learnt other pieces.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from audiomill.errors import UsageError

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


START, PAD, END, UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"
_SPECIAL = (START, PAD, END, UNKNOWN)
"""Tokens of every vocabulary of pieces, in their order, which is Speech2Text's."""


def learned_pieces(texts: Sequence[str], size: int) -> Any:
    """A tokenizer of transformers whose pieces write the texts.

    Args:
        texts: as they are to be written.
        size: most pieces, special ones included; fewer where the texts do not have as many.

    Raises:
        UsageError: the texts have more kinds of letters than that, or none.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import Unigram
    from transformers import PreTrainedTokenizerFast

    letters = {letter for text in texts for letter in text if not letter.isspace()}
    if not letters:
        raise UsageError("no label has a letter in it: expected text beside the audio or in a manifest's text column")
    least = len(letters) + 1 + len(_SPECIAL)
    if size < least:
        raise UsageError(
            f"--vocab-size {size}: the labels have {len(letters)} kinds of letters; expected at least {least}"
        )
    tokenizer = Tokenizer(Unigram(_learned(texts, size), unk_id=_SPECIAL.index(UNKNOWN), byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(_SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=PAD, unk_token=UNKNOWN
    )


def _learned(texts: Sequence[str], size: int) -> list[tuple[str, float]]:
    """Pieces with their log-probabilities, in their order; special ones first."""
    import sentencepiece

    model = io.BytesIO()
    start, pad, end, unknown = range(len(_SPECIAL))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=size,
        model_type="unigram",
        normalization_rule_name="identity",
        character_coverage=1.0,
        hard_vocab_limit=False,
        num_threads=1,
        input_sentence_size=0,
        max_sentence_length=1 << 20,
        bos_id=start, pad_id=pad, eos_id=end, unk_id=unknown,
        bos_piece=START, pad_piece=PAD, eos_piece=END, unk_piece=UNKNOWN,
        minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(processor.id_to_piece(at), processor.get_score(at)) for at in range(processor.get_piece_size())]
