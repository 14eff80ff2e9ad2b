"""Whisper's sizes, by the names of transformers, without its code: importing that takes a second of a run's start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """What computing needs of a config.json; defaults are those of `WhisperConfig`, which files may leave out."""

    vocab_size: int = 51865
    d_model: int = 384
    num_mel_bins: int = 80
    encoder_layers: int = 4
    decoder_layers: int = 4
    encoder_attention_heads: int = 6
    decoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    decoder_ffn_dim: int = 1536
    max_source_positions: int = 1500
    max_target_positions: int = 448

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Dimensions:
        """Of a config.json."""
        names = {field.name for field in fields(cls)} & settings.keys()
        return cls(**{name: int(settings[name]) for name in names})
