"""Options of `audiomill train-unit-lm`. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audiomill.config.fields import option
from audiomill.config.optimization import OptimizationConfig
from audiomill.config.train import TrainOutputConfig
from audiomill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class UnitsConfig(OptimizationConfig):
    """A masked language model over codes."""

    COMMON = (
        "model",
        "quantizer",
        "deduplicate",
        "width",
        "depth",
        "heads",
        "epochs",
        "max_updates",
        "learning_rate",
        "device",
    )

    model: str | None = option(
        None,
        "Checkpoint that made the codes; `embed` runs it before this one.",
        otherwise="the one that the table of codes names",
    )
    codebook: str | None = option(
        None, "Codebook file that made the codes, where it was not the checkpoint's own quantizer."
    )
    quantizer: str | None = option(None, "Whose codes, where the tables hold those of several.", results=True)
    deduplicate: bool = option(False, "Join runs of equal codes before they are learnt.", results=True)
    min_count: int = option(1, "Rarer codes (or groups of them) are one unknown token.", results=True)
    max_vocabulary: int = option(65_000, "Most tokens; the rarest beyond are unknown.", results=True)
    width: int = option(768, "Of hidden states.", results=True)
    depth: int = option(12, "Transformer layers.", results=True)
    heads: int = option(12, "Of attention.", results=True)
    max_positions: int = option(
        2048, "Tokens seen at once; longer segments are learnt and read in windows.", results=True
    )
    dropout: float | None = option(0.1, "Of all layers.", results=True)
    mask_start: float = option(0.05, "Share of tokens that start a masked span.", results=True)
    mask_span: int = option(10, "Tokens a masked span.", results=True)
    learning_rate: float | None = option(5e-4, "Highest learning rate.", results=True)
    weight_decay: float | None = option(0.01, "AdamW's.", results=True)
    batch_seconds: float = option(200.0, "Padded seconds of audio whose codes are a batch.", results=True)
    storage_options: dict[str, Any] = option({}, "fsspec options as JSON.")

    def check(self) -> None:
        super().check()
        self.require_positive("width", "depth", "heads", "mask_span", "min_count")
        self.require_shares("mask_start", "dropout")
        if self.width % self.heads:
            raise UsageError(f"--width {self.width}: expected a multiple of --heads {self.heads}")
        if self.max_positions < 16:
            raise UsageError(f"--max-positions {self.max_positions}: expected 16 or more")
        if self.max_vocabulary < 2:
            raise UsageError(f"--max-vocabulary {self.max_vocabulary}: expected 2 or more")


@dataclass(frozen=True, kw_only=True)
class TrainUnitsConfig:
    """`audiomill train-unit-lm`: outputs of encode -> a language model over their codes."""

    inputs: tuple[str, ...]
    units: UnitsConfig = UnitsConfig()
    output: TrainOutputConfig
