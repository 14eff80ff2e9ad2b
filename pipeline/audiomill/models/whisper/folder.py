"""What a Whisper folder tells without loading weights."""

from __future__ import annotations

import json
from pathlib import Path

from audiomill.errors import ModelError
from audiomill.models.shape import Shape

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
