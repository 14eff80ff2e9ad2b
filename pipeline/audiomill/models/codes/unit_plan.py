"""What is to become a language model over codes: kept beside the sequences that it is trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from audiomill.models.codes.unit_settings import UnitSettings

MIN_TOKENS = 4
_PLAN = "units.json"
"""Beside the sequences: everything that a worker needs to begin."""


@dataclass(frozen=True, kw_only=True)
class UnitPlan:
    """`encoder_files`: of the checkpoint that makes the codes, where it lies on this machine; `codebook`: file of the codebook;
    the rest: see `audiomill.config.train_unit_lm.UnitsConfig`."""

    settings: UnitSettings
    encoder_files: str | None
    codebook: str | None
    width: int
    depth: int
    heads: int
    max_positions: int
    dropout: float
    mask_start: float
    mask_span: int

    def save(self, folder: Path) -> None:
        """units.json."""
        (folder / _PLAN).write_text(json.dumps({**self.__dict__, "settings": self.settings.as_json()}, indent=1))


def read_plan(folder: Path) -> UnitPlan:
    """From units.json."""
    values = json.loads((folder / _PLAN).read_text())
    return UnitPlan(**{**values, "settings": UnitSettings(**values["settings"])})
