"""Word pieces learned from the training text. Source: Kudo 2018 (arXiv:1804.10959); the library is `tokenizers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audiomill.errors import UsageError

START, PAD, END, UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"
SPECIAL = (START, PAD, END, UNKNOWN)
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
    from tokenizers.trainers import UnigramTrainer
    from transformers import PreTrainedTokenizerFast

    letters = {letter for text in texts for letter in text if not letter.isspace()}
    if not letters:
        raise UsageError("no label has a letter in it: expected text beside the audio or in a manifest's text column")
    least = len(letters) + 1 + len(SPECIAL)
    if size < least:
        raise UsageError(
            f"--word-pieces {size}: the labels have {len(letters)} kinds of letters; expected at least {least}"
        )
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        unk_token=UNKNOWN,
        initial_alphabet=sorted(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=PAD, unk_token=UNKNOWN
    )
