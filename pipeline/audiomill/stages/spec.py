"""Everything a worker needs to know, settled once by the driver. Plain values: it travels to any node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from audiomill.audio.cutting.segmenter import SegmentSpec
from audiomill.config.run import EngineConfig
from audiomill.config.stages import DecodeConfig
from audiomill.models.task import TaskSpec
from audiomill.storage.fs import Place
from audiomill.tables.assemble import Tables


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A run. `bytes_per_second`: of each table of frames, for a second of audio; `verify_segments`: segments to compute again
    alone, by part."""

    output: Place
    digest: str
    decode: DecodeConfig
    segments: SegmentSpec
    tasks: tuple[TaskSpec, ...]
    tables: Tables
    engine: EngineConfig
    storage_options: dict[str, Any]
    part_seconds: float
    piece_samples: int
    bytes_per_second: Mapping[str, float]
    verbose: bool
    is_watched: bool = False
    verify_segments: Mapping[int, int] = field(default_factory=dict)

    @property
    def pieces_key(self) -> str:
        return str(self.piece_samples)

    @property
    def device(self) -> str:
        return self.tasks[0].model.device

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(task.model.precision for task in self.tasks)


def segments_to_verify(piece: pa.Table, spec: RunSpec) -> int:
    """Segments of a piece to compute again alone: those of its part are in its first piece."""
    part, number = (piece.column(name)[0].as_py() for name in ("part", "piece"))
    return spec.verify_segments.get(part, 0) if number == 0 else 0
