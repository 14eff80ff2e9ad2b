"""Everything a worker needs to know, settled once by the driver. Plain values: it travels to any node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.audio.segment import SegmentSpec
from pipeline.config import DecodeConfig, EngineConfig, ModelConfig
from pipeline.storage.fs import Place


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A transcription run."""

    output: Place
    digest: str
    decode: DecodeConfig
    segments: SegmentSpec
    model: ModelConfig
    engine: EngineConfig
    storage_options: dict[str, Any]
    piece_samples: int
    batch_samples: int
    verbose: bool

    @property
    def pieces_key(self) -> str:
        return str(self.piece_samples)
