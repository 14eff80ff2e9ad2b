"""The verification notices a model whose answers depend on its neighbours, and leaves sound ones alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiomill.errors import RunError
from audiomill.models.batch import Difference, largest
from audiomill.stages.steps.verify import choose_segments, verdict
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import encode, noise


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(8):
        (tmp_path / "in" / f"{number}.wav").write_bytes(encode(noise(4_000 * (number + 1), number)))
    return tmp_path / "in"


@pytest.mark.parametrize("kind", ["embed", "encode"])
def test_a_leak_of_padding_fails_the_run_and_is_recorded(tmp_path: Path, corpus: Path, kind: str) -> None:
    with pytest.raises(RunError, match="verification: segments give something else in a batch than alone"):
        run(corpus, tmp_path / "out", kind, model="fake://leaky", verify_segments=8)
    found = json.loads((tmp_path / "out" / "run.json").read_text())["verification"]
    assert found["relative_l2"] > 1e-4 or found["num_differing"] > 0
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    with pytest.raises(RunError, match="verification"):  # the same command again does not wave it through
        run(corpus, tmp_path / "out", kind, model="fake://leaky", verify_segments=8)


def test_the_canary_can_be_turned_off(tmp_path: Path, corpus: Path) -> None:
    summary = run(corpus, tmp_path / "out", "embed", model="fake://leaky", verify_segments=0)
    assert summary["verification"]["num_segments"] == 0 and len(rows(tmp_path / "out", "embeddings")) == 8
    assert "verification" not in json.loads((tmp_path / "out" / "run.json").read_text())


def test_a_sound_model_passes_and_the_figure_is_kept(tmp_path: Path, corpus: Path) -> None:
    summary = run(corpus, tmp_path / "out", "embed", verify_segments=5, part_seconds=0.5)
    beside = {"inputs_apart": 0.0, "outputs_apart": 0.0, "not_compared": ""}
    assert summary["verification"] == {
        "num_segments": 5, "relative_l2": 0.0, "num_differing": 0, "num_compared": 0, **beside,
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "run.json").read_text())["verification"] == summary["verification"]


@given(st.integers(0, 40), st.integers(1, 20), st.text(max_size=4))
def test_segments_are_spread_over_the_parts_and_none_is_forgotten(num_wanted: int, num_parts: int, seed: str) -> None:
    chosen = choose_segments(range(num_parts), num_wanted, seed)
    found = [chosen.get(part, 0) for part in range(num_parts)]
    assert sum(found) == num_wanted and max(found) - min(found) <= 1


def test_the_verdict_knows_rounding_from_leaks() -> None:
    assert verdict(Difference(3, 2e-5, 1, 3_000), "fp32") is None
    assert "vectors" in str(verdict(Difference(3, 2e-4, 0, 0), "fp32"))
    assert "vectors" in str(verdict(Difference(3, float("nan"), 0, 0), "fp16"))
    assert "40 of 3000 codes" in str(verdict(Difference(3, 0.0, 40, 3_000), "fp32"))
    assert verdict(Difference(3, 5e-3, 40, 3_000), "fp16") is None
    both = largest([Difference(1, 0.5, 2, 10), Difference(2, float(np.float32(0.25)), 3, 20)])
    assert both == Difference(3, 0.5, 5, 30)
