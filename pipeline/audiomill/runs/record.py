"""What run.json says about a run beside its settings: versions, names, and what the verification found."""

from __future__ import annotations

import dataclasses
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import audiomill
from audiomill.config.jobs import JobConfig
from audiomill.models.batch import Difference
from audiomill.models.checkpoint import find_checkpoint
from audiomill.models.ctc.vocabulary import vocabulary_of
from audiomill.storage.fs import Place
from audiomill.storage.urls import without_credentials

RECORDED_PACKAGES = (
    "torch", "transformers", "ray", "pyarrow", "numpy", "soundfile", "av", "soxr", "silero-vad", "onnxruntime", "fsspec",
)  # fmt: skip


def run_record(config: JobConfig) -> dict[str, Any]:
    """What run.json holds beside the settings that change results; no credentials."""
    names = [without_credentials(task.model.model) for task in config.tasks]
    return {
        "job": config.name,
        "audiomill": audiomill.__version__,
        "python": platform.python_version(),
        "packages": {name: result for name in RECORDED_PACKAGES if (result := _version(name)) is not None},
        "model_name": names[0] if len(names) == 1 else names,
        "part_seconds": config.plan.part_seconds,
        "inputs": [without_credentials(url) for url in config.inputs],
        **_vocabulary(config),
    }


def _vocabulary(config: JobConfig) -> dict[str, Any]:
    """What the numbers in the posteriors table stand for."""
    for task in config.tasks:
        if task.has_text and task.text.decoder.save_posteriors:
            vocabulary = vocabulary_of(
                find_checkpoint(task.model, config.plan.storage_options),
                task.text.language,
                task.model.trust_remote_code,
            )
            return {"ctc_vocabulary": dataclasses.asdict(vocabulary)}
    return {}


def record_verification(output: Place, difference: Difference) -> None:
    """Adds what the verification found to run.json."""
    place = output.join("run.json")
    record = json.loads(place.read())
    results = {**difference._asdict(), "relative_l2": float(f"{difference.relative_l2:.3g}")}
    if record.get("verification") != results:
        place.write(json.dumps({**record, "verification": results}, indent=2, sort_keys=True).encode())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
