"""Several processes that train together: our own are in test_train; those of torchrun and of Ray Train are here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.tone_language import save_config, write_corpus
from tests.support.training import trained

OPTIONS = {"max_updates": 4, "dropout": 0.0}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of twice as many batches an update."""
    root = tmp_path_factory.mktemp("workers")
    write_corpus(root / "labelled", range(24))
    save_config(root / "config")
    trained(root / "labelled", root / "one", model=str(root / "config"), gradient_accumulation_steps=2, **OPTIONS)
    return root


def difference(one: Path, other: Path) -> float:
    weights: list[dict[str, torch.Tensor]] = [
        load_file(each / "checkpoint" / "model.safetensors") for each in (one, other)
    ]
    return max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])


@pytest.mark.nightly
@pytest.mark.timeout(200)
def test_torchrun_s_workers_take_the_steps_of_one(alone: Path) -> None:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "audiomill",
    ]
    job = [
        "finetune",
        str(alone / "labelled"),
        "--model",
        str(alone / "config"),
        "--output",
        str(alone / "two"),
        "--from-scratch",
    ]
    settings = [
        "--batch-seconds",
        "8",
        "--learning-rate",
        "4e-3",
        "--mask-time-prob",
        "0",
        "--device",
        "cpu",
        "--max-updates",
        "4",
    ]
    done = subprocess.run(
        [*launcher, *job, *settings, "--dropout", "0"],
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint:") == 1
    assert difference(alone / "one", alone / "two") < 2e-4


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_ray_train_s_workers_take_the_steps_of_one(ray_session: Any, alone: Path) -> None:
    trained(alone / "labelled", alone / "ray", model=str(alone / "config"), workers=2, engine="ray", **OPTIONS)
    assert difference(alone / "one", alone / "ray") < 2e-4
