"""What config.json says of a language model over codes, besides what transformers reads of it. No torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiomill.errors import ModelError

KEY = "audiomill_units"
"""In config.json, which is RoBERTa's."""
ENCODER, CODEBOOK, VOCABULARY = "encoder", "codebook.safetensors", "vocab.json"
START, PAD, END, UNKNOWN, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
SPECIAL = (START, PAD, END, UNKNOWN, MASK)
"""Tokens of every vocabulary, in their order, which is RoBERTa's."""


@dataclass(frozen=True, kw_only=True)
class UnitSettings:
    """Where the codes come from, and how they become tokens.

    Attributes:
        encoder: what makes the codes: `encoder` for the folder beside (or a file in there), else a hub id or URL.
        encoder_fingerprint: of its weights.
        quantizer: its name in the table of codes.
        has_codebook: the codes are those of the codebook file beside, not of the checkpoint's own quantizer.
        num_codebooks: whose codes stand side by side in a token.
        num_entries: of each codebook.
        hop: samples at 16 kHz from one code to the next.
        deduplicate: runs of equal codes are one token.
    """

    encoder: str
    encoder_fingerprint: str
    quantizer: str
    has_codebook: bool
    num_codebooks: int
    num_entries: int
    hop: int
    deduplicate: bool

    def as_json(self) -> dict[str, Any]:
        """What stands under KEY."""
        return dataclasses.asdict(self)


def unit_settings(folder: Path) -> UnitSettings:
    """Reads config.json.

    Raises:
        ModelError: a field is missing or of another kind.
    """
    place = folder / "config.json"
    try:
        result = json.loads(place.read_text(encoding="utf-8")).get(KEY)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{place}: cannot be read ({error}); expected what `audiomill train-unit-lm` writes"
        ) from error
    kinds = {"str": str, "bool": bool, "int": int}
    for field in dataclasses.fields(UnitSettings):
        value = result.get(field.name) if isinstance(result, dict) else None
        if type(value) is not kinds[str(field.type)]:
            raise ModelError(f"{place}: {KEY}.{field.name}: expected {field.type}, got {value!r}")
    return UnitSettings(**{each.name: result[each.name] for each in dataclasses.fields(UnitSettings)})


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
