"""Options of `audiomill train-unit-lm`. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audiomill.config.fields import Validated, option
from audiomill.config.train import TrainConfig, TrainOutputConfig
from audiomill.errors import UsageError

SHARED = (
    "epochs", "max_updates", "schedule", "warmup_ratio", "hold_ratio", "weight_decay", "max_grad_norm", "batch_seconds", "gradient_accumulation_steps",
    "save_minutes", "device", "precision", "workers", "engine", "ray_address", "seed", "gradient_checkpointing",
)  # fmt: skip
"""Options that mean here what they mean in `finetune`, with the same defaults."""


@dataclass(frozen=True, kw_only=True)
class UnitsConfig(Validated):
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
    dropout: float = option(0.1, "Of all layers.", results=True)
    mask_start: float = option(0.05, "Share of tokens that start a masked span.", results=True)
    mask_span: int = option(10, "Tokens a masked span.", results=True)
    learning_rate: float = option(5e-4, "Highest learning rate.", results=True)
    epochs: float = option(TrainConfig.epochs, "Passes over the codes.", results=True)
    max_updates: int | None = option(None, "Steps of the optimiser, instead of --epochs.", results=True)
    schedule: str = option(
        TrainConfig.schedule,
        "tri-stage: up, hold, decay; cosine: up, then down along a cosine; constant: up, then hold.",
        choices=("tri-stage", "cosine", "constant"),
        results=True,
    )
    warmup_ratio: float = option(
        TrainConfig.warmup_ratio, "Share of the updates in which the rate rises.", results=True
    )
    hold_ratio: float = option(TrainConfig.hold_ratio, "tri-stage: share in which it stays.", results=True)
    weight_decay: float = option(0.01, "AdamW's.", results=True)
    max_grad_norm: float = option(TrainConfig.max_grad_norm, "Gradients are scaled down to this norm.", results=True)
    batch_seconds: float = option(200.0, "Padded seconds of audio whose codes are a batch.", results=True)
    gradient_accumulation_steps: int = option(
        TrainConfig.gradient_accumulation_steps, "Batches an update, on each worker.", results=True
    )
    save_minutes: float = option(TrainConfig.save_minutes, "Minutes of training that a kill can lose.")
    gradient_checkpointing: bool = option(False, "Less memory, a third more time.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    precision: str = option(
        "auto",
        "auto: bf16 on GPUs that have it, else fp16; fp32 on CPU.",
        choices=("auto", "fp32", "bf16", "fp16"),
        results=True,
    )
    workers: int = option(1, "Processes that train together, one a GPU (torch distributed).", results=True)
    engine: str = option(
        "auto",
        "local: workers on this machine (or those that torchrun started); ray: workers of Ray Train; auto: local, unless "
        "--ray-address or RAY_ADDRESS names a cluster.",
        choices=("auto", "local", "ray"),
    )
    ray_address: str | None = option(None, "Address of a running cluster, or auto.")
    seed: int = option(0, "Of new weights, order, masks and dropout.", results=True)
    storage_options: dict[str, Any] = option({}, "fsspec options as JSON.")

    def check(self) -> None:
        self.require_positive(
            "width", "depth", "heads", "mask_span", "min_count", "learning_rate", "max_updates", "epochs"
        )
        self.require_positive(
            "batch_seconds", "gradient_accumulation_steps", "workers", "max_grad_norm", "save_minutes"
        )
        if self.width % self.heads:
            raise UsageError(f"--width {self.width}: expected a multiple of --heads {self.heads}")
        if self.max_positions < 16:
            raise UsageError(f"--max-positions {self.max_positions}: expected 16 or more")
        if self.max_vocabulary < 2:
            raise UsageError(f"--max-vocabulary {self.max_vocabulary}: expected 2 or more")
        for name in ("mask_start", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: expected a share from 0 to below 1"
                )

    def for_loop(self) -> TrainConfig:
        """What the training loop reads."""
        shared = {name: getattr(self, name) for name in SHARED}
        return TrainConfig(**shared, learning_rate=self.learning_rate, dropout=self.dropout, objective="units")


@dataclass(frozen=True, kw_only=True)
class TrainUnitsConfig:
    """`audiomill train-unit-lm`: outputs of encode -> a language model over their codes."""

    inputs: tuple[str, ...]
    units: UnitsConfig = UnitsConfig()
    output: TrainOutputConfig
