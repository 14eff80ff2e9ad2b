"""Training in tests: quick settings, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from audiomill.config.fields import build
from audiomill.config.stages import PlanConfig
from audiomill.config.train import FinetuneConfig, TrainConfig, TrainOutputConfig
from audiomill.text.normalize import Text
from audiomill.train.fit.finetune import train_model

QUICK = {"from_scratch": True, "batch_seconds": 8.0, "learning_rate": 4e-3, "mask_time_prob": 0.0, "device": "cpu"}


def trained(inputs: Any, output: Path, **options: Any) -> dict[str, Any]:
    """The report of a training from a configuration alone, unless told otherwise."""
    config = FinetuneConfig(
        inputs=tuple(map(str, inputs if isinstance(inputs, list) else [inputs])),
        train=build(TrainConfig, {**QUICK, **options}),
        plan=PlanConfig(),
        output=TrainOutputConfig(output=str(output), quiet=True),
    )
    return train_model(config, Console(quiet=True))


def said(*texts: str, language: str | None = None) -> list[Text]:
    """Texts of one language, or of none."""
    return [Text(text, language) for text in texts]
