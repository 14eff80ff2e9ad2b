"""A training's folder belongs to the settings that made it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from audiomill.config.fields import result_fields
from audiomill.config.train import FinetuneConfig
from audiomill.errors import UsageError

FILES = {
    "run.json", "clips", "state", "checkpoint", "metrics.jsonl", "tensorboard", "dropped.parquet", "clips.parquet", "result.json", "report.html",
}  # fmt: skip
"""What a run writes: --overwrite deletes these and nothing else."""


def fields_of(config: FinetuneConfig, identity: str) -> dict[str, Any]:
    """What another value of would give other weights, by flag name."""
    return {
        **result_fields(config),
        "model": identity,
        "inputs": list(config.inputs),
        "pseudo": config.train.pseudo,
        "dev": config.train.dev,
    }


def claim(output: Path, fields: dict[str, Any], job: str = "finetune") -> None:
    """Claims the folder for these settings of a job, or checks that they made it."""
    path = output / "run.json"
    if not path.exists():
        foreign = [each.name for each in output.iterdir() if each.name not in FILES]
        if foreign:
            raise UsageError(f"--output {output}: holds {foreign[0]!r}, which no training wrote; choose another folder")
        path.write_text(json.dumps({"job": job, "results": fields}, indent=1, sort_keys=True))
        return
    before = json.loads(path.read_text())["results"]
    differing = [name for name in sorted(before.keys() | fields.keys()) if before.get(name) != fields.get(name)]
    if differing:
        name = differing[0]
        raise UsageError(
            f"--output {output} was made with other settings: --{name} was {before.get(name)!r}, now {fields.get(name)!r}. "
            "Use the old settings, another --output, or --overwrite"
        )


def clear(output: Path) -> None:
    foreign = [each.name for each in output.iterdir() if each.name not in FILES] if output.exists() else []
    if foreign:
        raise UsageError(
            f"--overwrite: {output} holds {foreign[0]!r}, which no training wrote; choose another --output"
        )
    shutil.rmtree(output, ignore_errors=True)
