"""What a Whisper folder tells without loading weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audiomill.errors import ModelError
from audiomill.models.task import Shape


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


WHISPER_HOP = 320


def whisper_shape(folder: Path) -> Shape:
    """Of a Hugging Face Whisper folder."""
    config = json.loads((folder / "config.json").read_text())
    return Shape(width=config["d_model"], num_layers=config["encoder_layers"], hop=WHISPER_HOP)


def vocabulary_size(folder: Path) -> int:
    """Tokens of a Whisper folder: by config.json, or by the list that CTranslate2 keeps beside the weights."""
    settings = folder / "config.json"
    size = json.loads(settings.read_text()).get("vocab_size") if settings.exists() else None
    if size is not None:
        return int(size)
    listed = folder / "vocabulary.json"
    if listed.exists():
        return len(json.loads(listed.read_text()))
    lines = folder / "vocabulary.txt"
    if not lines.exists():
        raise ModelError(
            f"{folder}: no vocabulary; expected vocab_size in config.json, vocabulary.json or vocabulary.txt"
        )
    return lines.read_text(encoding="utf-8").count("\n")
