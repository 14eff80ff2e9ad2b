"""Options wherever they come from: YAML 1.2, Python, and outputs of versions that did not have them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import audiomill
from audiomill.config.fields import defaults_of, differing
from audiomill.config.jobs import TranscribeConfig
from audiomill.config.run import EngineConfig
from audiomill.errors import ConfigMismatchError, UsageError
from audiomill.runs import engine
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill_jobs.options import checked_values
from audiomill_jobs.yaml_files import yaml_mapping
from tests.support.jobs_by_hand import job
from tests.support.synth import encode, tone


def read(tmp_path: Path, text: str) -> dict[str, Any]:
    (tmp_path / "job.yaml").write_text(text)
    return checked_values(yaml_mapping(str(tmp_path / "job.yaml")), TranscribeConfig, "job.yaml")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("language: no", "language", "no"),
        ("languages: [en, no]", "languages", "en,no"),
        ("prompt: 1.10", "prompt", "1.10"),
        ("prompt: 2024-05-01", "prompt", "2024-05-01"),
        ("prompt: 12:30", "prompt", "12:30"),
        ("prompt: 010", "prompt", "010"),
        ("output: 2024_05", "output", "2024_05"),
        ("actors: 010", "actors", 10),
        ("part-seconds: 1e3", "part_seconds", 1000.0),
        ("quiet: yes", "quiet", True),
        ("quiet: off", "quiet", False),
    ],
)
def test_a_yaml_value_is_what_was_written(tmp_path: Path, line: str, name: str, value: Any) -> None:
    assert read(tmp_path, line) == {name: value}


@pytest.mark.parametrize(
    "text", ["actors: [1", "actors: 1\nactors: 2", "quiet: 3", "actors: {a: 1}", "- a", "actors: two"]
)
def test_a_yaml_file_that_means_nothing_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ((np.zeros(3),), {}, "expected paths or URLs, got ndarray"),
        ((), {}, "INPUT is missing"),
        (("a",), {"layer": 2}, "did you mean layers"),
        (("a",), {"actors": "2"}, "expected a whole number, got str"),
        (("a",), {"model": None}, "expected a text, got NoneType"),
        (("a",), {"layers": [2, {}]}, "layers"),
    ],
)
def test_what_python_gives_is_checked_by_name(
    tmp_path: Path, inputs: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        audiomill.run("embed", *inputs, output=tmp_path / "out", **{"model": "fake://", **options})


def test_lists_paths_and_numbers_are_taken_as_they_are_meant(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(tone(1.0)))
    options: dict[str, Any] = {"model": "fake://", "engine": "local", "report": False, "verify_segments": 0}
    done = audiomill.run("embed", [tmp_path / "a.wav"], output=tmp_path / "out", layers=[1, 2], **options)
    assert done["num_recordings"] == 1
    found = {name for name, _ in audiomill.open_output(str(tmp_path / "out"), layer=2)}
    assert len(found) == 1


def test_an_option_that_did_not_exist_is_at_its_default_no_other_setting(tmp_path: Path) -> None:
    defaults = defaults_of(TranscribeConfig)
    assert differing({"a": 1}, {"a": 1, "coverage-score": defaults["coverage-score"]}, defaults) == []
    assert differing({"a": 1}, {"a": 1, "coverage-score": 3.0}, defaults) == ["coverage-score"]
    assert differing({"a": 1, "b": 2}, {"a": 2}, defaults) == ["a", "b"]
    assert differing({"m": {"x": 1}}, {"m": {"x": 1, "punctuation": True}}, defaults) == []
    place = Place(str(tmp_path / "out"))
    ledger.guard(place, {"language": "en"}, {}, defaults)
    ledger.guard(place, {"language": "en", "punctuation": True}, {}, defaults)
    with pytest.raises(ConfigMismatchError, match="punctuation"):
        ledger.guard(place, {"language": "en", "punctuation": False}, {}, defaults)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["results"] == {"language": "en"}


@pytest.mark.parametrize(
    ("gpus", "asked", "actors"), [(8, {}, 8), (8, {"actors": 2}, 2), (8, {"gpus_per_actor": 0.5}, 16), (1, {}, 1)]
)
def test_every_gpu_of_a_machine_has_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, asked: dict[str, Any], actors: int
) -> None:
    monkeypatch.setattr(engine, "num_devices", lambda kind: gpus)  # this machine's devices, which are no code of ours
    monkeypatch.setattr(engine, "resolve_device", lambda device: "cuda")
    config = job(tmp_path, tmp_path / "out", model="fake://", device="cuda")
    config = dataclasses.replace(config, engine=EngineConfig(**asked))
    assert engine.with_engine(config).engine.actors == actors
