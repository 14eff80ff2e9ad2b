"""A training's folder belongs to the settings that made it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiomill.config.fields import defaults_of, differing, result_fields
from audiomill.config.train import FinetuneConfig
from audiomill.config.train_unit_lm import TrainUnitsConfig
from audiomill.errors import UsageError

LOCK = "lock"
FILES = {
    "run.json", "clips", "state", "checkpoint", "metrics.jsonl", "tensorboard", "dropped.parquet", "clips.parquet", "result.json", "report.html", "lock",
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
    others = differing(before, fields, defaults_of(FinetuneConfig, TrainUnitsConfig))
    if others:
        name = others[0]
        raise UsageError(
            f"--output {output} was made with other settings: --{name} was {before.get(name)!r}, now {fields.get(name)!r}. "
            "Use the old settings, another --output, or --overwrite"
        )


def clear_training(output: Path) -> None:
    foreign = [each.name for each in output.iterdir() if each.name not in FILES] if output.exists() else []
    if foreign:
        raise UsageError(
            f"--overwrite: {output} holds {foreign[0]!r}, which no training wrote; choose another --output"
        )
    for each in output.iterdir() if output.exists() else ():
        if each.name == LOCK:
            continue
        shutil.rmtree(each) if each.is_dir() else each.unlink()


@contextlib.contextmanager
def locked(output: Path) -> Iterator[None]:
    """Keeps the folder to this process while inside; a killed one holds it no longer.

    Raises:
        UsageError: another training works there.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK).open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"--output {output}: another training works there; wait for its end, or name another --output"
            ) from None
        except OSError:  # file systems without locks
            yield
            return
        yield
