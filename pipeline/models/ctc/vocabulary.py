"""The tokens of a CTC checkpoint, from its tokenizer files; loads no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audiomill.errors import ModelError
from audiomill.models.checkpoint import Checkpoint
from audiomill.models.ctc.greedy import CtcVocabulary


def vocabulary_of(checkpoint: Checkpoint, trust_remote_code: bool) -> CtcVocabulary:
    """Of a checkpoint with a CTC head."""
    folder = Path(checkpoint.path)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = ctc_tokenizer(folder, trust_remote_code)
    return ctc_vocabulary(
        tokenizer, config.get("vocab_size", len(tokenizer)), config.get("pad_token_id", tokenizer.pad_token_id)
    )


def ctc_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder}: no tokenizer for its CTC head ({error}); expected vocab.json beside the weights"
        ) from error


def ctc_vocabulary(tokenizer: Any, size: int, blank: int) -> CtcVocabulary:
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens = tuple(names.get(number, "") for number in range(size))
    delimiter = getattr(tokenizer, "word_delimiter_token", None) or "|"
    spaced = hasattr(tokenizer, "phone_delimiter_token")
    return CtcVocabulary(tokens, blank, delimiter, bool(getattr(tokenizer, "do_lower_case", False)), spaced)
