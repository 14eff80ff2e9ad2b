"""The kinds of training that test_train does not kill: heads of several languages, a projector, Whisper's decoder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from tests.models.test_language_heads import manifest
from tests.support.language_models import save_language_model
from tests.support.synth import RATE
from tests.support.tone_language import save_config, write_corpus
from tests.support.training import trained

COMMAND = """
import json, sys
from tests.support.training import trained
trained(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
"""
OFTEN = {"save_minutes": 0.002, "evaluate_every": 2, "max_updates": 6}


def by_language(root: Path, _: Any) -> tuple[Path, dict[str, Any]]:
    dev = str(manifest(root / "dev", range(300, 304)))
    model = str(save_config(root / "config"))
    return manifest(root / "in", range(16)), {"model": model, "dev": dev, "language_adapters": True, "adapter_width": 4}


def projector(root: Path, fixtures: Any) -> tuple[Path, dict[str, Any]]:
    lm = str(save_language_model(root / "lm", "qwen3"))
    options = {"model": str(fixtures("wav2vec2_folder")), "lm": lm, "projector": True, "learning_rate": None}
    return write_corpus(root / "in", range(16)), {**options, "from_scratch": False, "no_speech_augment_prob": 0.2}


def whisper(root: Path, fixtures: Any) -> tuple[Path, dict[str, Any]]:
    (root / "in").mkdir()
    for number, (pcm, text) in enumerate(fixtures("voices")[:2]):
        soundfile.write(root / "in" / f"{number}.wav", pcm, RATE)
        (root / "in" / f"{number}.txt").write_text(text)
    options = {"model": str(fixtures("whisper")), "from_scratch": False, "freeze_encoder": True, "learning_rate": 1e-4}
    return root / "in", {**options, "mask_time_prob": 0.05, "max_updates": 4, "batch_seconds": 60.0}


def weights(output: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, its adapters and projector among them."""
    files = sorted((output / "checkpoint").glob("**/*.safetensors"))
    assert files
    return {f"{file.name}/{name}": value for file in files for name, value in load_file(file).items()}


@pytest.mark.nightly  # daily: a CTC training is killed in test_train
@pytest.mark.parametrize("kind", [by_language, projector, whisper])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    kind: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    inputs, options = kind(tmp_path, request.getfixturevalue)
    options = {**OFTEN, **options}
    trained(inputs, tmp_path / "whole", **options)
    command = [sys.executable, "-c", COMMAND, str(inputs), str(tmp_path / "killed"), json.dumps(options)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.getcwd()})
    while not list((tmp_path / "killed" / "state").glob("update-*.pt")):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "report.json").exists()
    trained(inputs, tmp_path / "killed", **options)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
