"""Options of every training loop, whatever is learnt. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

from dataclasses import dataclass

from audiomill.config.fields import Validated, flag, option
from audiomill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig(Validated):
    """Updates, learning rate, batches and where they are computed. What is no option here is off unless a job offers it."""

    learning_rate: float | None = option(
        None,
        "Highest learning rate.",
        otherwise="1e-4; for a projector, on features and for seq2seq 1e-3",
        results=True,
    )
    epochs: float = option(10.0, "Passes over what is learnt from.", results=True)
    max_updates: int | None = option(None, "Steps of the optimiser, instead of --epochs.", results=True)
    schedule: str = option(
        "tri-stage",
        "tri-stage: up, hold, decay; cosine: up, then down along a cosine; constant: up, then hold.",
        choices=("tri-stage", "cosine", "constant"),
        results=True,
    )
    warmup_ratio: float = option(0.1, "Share of the updates in which the learning rate rises.", results=True)
    hold_ratio: float = option(0.4, "tri-stage: share in which it stays.", results=True)
    weight_decay: float | None = option(
        None, "AdamW's.", otherwise="0.01; for a projector or on features 0", results=True
    )
    max_grad_norm: float = option(1.0, "Gradients are scaled down to this norm.", results=True)
    batch_seconds: float = option(
        100.0, "Padded seconds of audio a batch; what is of like length shares one.", results=True
    )
    gradient_accumulation_steps: int = option(1, "Batches an update, on each worker.", results=True)
    dropout: float | None = option(None, "Of all layers.", otherwise="the checkpoint's own", results=True)
    gradient_checkpointing: bool = option(False, "Less memory, a third more time.")
    save_minutes: float = option(5.0, "Minutes of training that a kill can lose.")
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
    seed: int = option(0, "Of new weights, order, augmentation, masks and dropout.", results=True)
    max_warmup_updates: int | None = None
    speed_augment: float = 0.0
    noise_snr: float | None = None
    ema_decay: float | None = None
    evaluate_every: int | None = None
    patience: int | None = None
    language: str | None = None

    def check(self) -> None:
        self.require_positive(
            "epochs", "max_updates", "learning_rate", "batch_seconds", "gradient_accumulation_steps", "workers", "max_grad_norm",
            "save_minutes",
        )  # fmt: skip
        if not (self.warmup_ratio >= 0 and self.hold_ratio >= 0 and self.warmup_ratio + self.hold_ratio <= 1):
            raise UsageError("--warmup-ratio and --hold-ratio: expected shares that add up to at most 1")

    def require_shares(self, *names: str) -> None:
        """From 0 to below 1."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"--{flag(name)} {value}: expected a share from 0 to below 1")
