"""The tokenizer beside a checkpoint. Loads no torch: a run is planned without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiomill.errors import ModelError


def tokenizer_of(folder: Path) -> Any:
    """The fast tokenizer, made from vocab.json and merges.txt where there is no tokenizer.json.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from tokenizers import Tokenizer

    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise ModelError(
            f"{folder}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt, beside the weights"
        )
    try:
        if (folder / "tokenizer.json").exists():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        from transformers import WhisperTokenizerFast

        return WhisperTokenizerFast.from_pretrained(folder).backend_tokenizer
    except Exception as error:  # tokenizers raises nothing narrower
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{folder}: its tokenizer cannot be read ({reason}); take the checkpoint's own files"
        ) from error
