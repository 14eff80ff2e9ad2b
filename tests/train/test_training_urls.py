"""A training whose output is a bucket: killed on one machine, it goes on on another and ends with the same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load

from audiomill.config.train import FinetuneConfig, TrainConfig, TrainOutputConfig
from audiomill.errors import UsageError
from audiomill.storage.fs import Place
from audiomill.train.fit.finetune import train_model
from tests.support.object_store import s3_server
from tests.support.tone_language import save_config, write_corpus
from tests.support.training import trained

UPDATES = 60
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


def command(root: Path, output: str, options: str) -> list[str]:
    return [
        sys.executable, "-m", "audiomill", "finetune", str(root / "in"), "--model", str(root / "config"), "--from-scratch",
        "--max-updates", str(UPDATES), "--batch-seconds", "8", "--save-minutes", "0.0001", "--output", output, "--quiet",
        "--storage-options", options, "--device", "cpu",
    ]  # fmt: skip


def weights(data: bytes) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load(data)
    return found


@pytest.mark.nightly
def test_a_killed_training_goes_on_from_its_bucket_on_another_machine(tmp_path: Path) -> None:
    write_corpus(tmp_path / "in", range(16))
    save_config(tmp_path / "config")
    with s3_server() as endpoint:
        options = {"key": "a", "secret": "b", "client_kwargs": {"endpoint_url": endpoint}}
        bucket = Place("s3://models", options)
        bucket.fs.mkdir("models")
        place = bucket.join("tones")

        def start(machine: str) -> subprocess.Popen[bytes]:
            environment = {**os.environ, **ENVIRONMENT, "XDG_CACHE_HOME": str(tmp_path / machine)}
            return subprocess.Popen(
                command(tmp_path, place.url, json.dumps(options)), env=environment, stderr=subprocess.PIPE
            )

        def states() -> list[str]:
            bucket.fs.invalidate_cache()
            return [each for each in place.join("state").names() if each.endswith(".pt")]

        first = start("one")
        while not states():
            assert first.poll() is None, first.communicate()
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        shutil.rmtree(tmp_path / "one")
        second = start("two")
        _, told = second.communicate()
        assert second.returncode == 0, told
        assert not states(), "what only the training needed is gone"
        report = json.loads(place.join("result.json").read())
        assert report["num_updates"] == UPDATES
        trained(
            tmp_path / "in", tmp_path / "whole", model=str(tmp_path / "config"), max_updates=UPDATES, batch_seconds=8.0,
            learning_rate=None, mask_time_prob=0.05,
        )  # fmt: skip
        one = weights(place.join("checkpoint", "model.safetensors").read())
        other = weights((tmp_path / "whole" / "checkpoint" / "model.safetensors").read_bytes())
        assert all(torch.equal(one[name], other[name]) for name in other)
        third = start("three")
        third.communicate()
        assert third.returncode == 0 and json.loads(place.join("result.json").read()) == report


def test_a_training_that_is_done_is_known_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in", range(4))
    model = str(save_config(tmp_path / "config"))
    reports = []
    for machine in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        reports.append(trained(tmp_path / "in", "memory://trainings/done", model=model, max_updates=2))  # type: ignore[arg-type]
    assert [each["is_new"] for each in reports] == [True, False] and reports[1]["num_updates"] == 2
    names = Place("memory://trainings/done", {}).fs.find("/trainings/done")
    assert any(each.endswith("checkpoint/model.safetensors") for each in names)
    assert not any("/clips/" in each or "/state/" in each for each in names)


def test_what_another_run_left_on_this_machine_is_not_taken_for_the_bucket_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "in", range(4))
    model = str(save_config(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = Place("memory://trainings/again", {})
    url: Any = place.url
    assert trained(tmp_path / "in", url, model=model, max_updates=1)["is_new"]
    place.join("texts", "part.parquet").write(b"of somebody else")
    assert not trained(tmp_path / "in", url, model=model, max_updates=1)["is_new"]
    with pytest.raises(UsageError, match="--seed was 0, now 1"):
        trained(tmp_path / "in", url, model=model, max_updates=1, seed=1)
    place.fs.rm("/trainings/again", recursive=True)
    report = trained(tmp_path / "in", url, model=model, max_updates=1, seed=1)
    assert report["is_new"] and report["seed"] == 1, "an emptied bucket belongs to nobody"
    place.join("texts", "part.parquet").write(b"of somebody else")
    place.join("result.json").remove()  # as if the last copy was cut short
    assert not trained(tmp_path / "in", url, model=model, max_updates=1, seed=1)["is_new"]
    assert json.loads(place.join("result.json").read())["seed"] == 1
    assert place.join("texts", "part.parquet").read() == b"of somebody else"


def test_a_bucket_with_other_things_is_left_alone(tmp_path: Path) -> None:
    write_corpus(tmp_path / "in", range(2))
    save_config(tmp_path / "config")
    place = Place("memory://trainings/x", {})
    place.join("photos", "a.jpg").write(b"x")

    def start(**output: Any) -> None:
        config = TrainConfig(model=str(tmp_path / "config"), from_scratch=True, max_updates=1, device="cpu")
        train_model(
            FinetuneConfig(
                inputs=(str(tmp_path / "in"),),
                train=config,
                output=TrainOutputConfig(output=place.url, quiet=True, **output),
            ),
            Console(quiet=True),
        )

    for output in ({}, {"overwrite": True}):
        with pytest.raises(UsageError, match="holds 'photos', which no training wrote"):
            start(**output)
    assert place.join("photos", "a.jpg").read() == b"x"
