"""Training in tests: quick settings, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.config import PlanConfig
from pipeline.fields import build
from pipeline.train.finetune import finetune
from pipeline.train_config import FinetuneConfig, TrainConfig, TrainOutputConfig

QUICK = {"from_scratch": True, "batch_seconds": 8.0, "learning_rate": 4e-3, "mask_time": 0.0, "device": "cpu"}


def trained(inputs: Any, output: Path, **options: Any) -> dict[str, Any]:
    """The report of a training from a configuration alone, unless told otherwise."""
    config = FinetuneConfig(
        inputs=tuple(map(str, inputs if isinstance(inputs, list) else [inputs])),
        train=build(TrainConfig, {**QUICK, **options}),
        plan=PlanConfig(),
        output=TrainOutputConfig(output=str(output), quiet=True),
    )
    return finetune(config, Console(quiet=True))
