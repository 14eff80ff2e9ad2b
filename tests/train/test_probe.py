"""The probe: it finds the layer that tells, agrees with scikit-learn, and tests on recordings that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from audiomill.models.vectors.probe import fitted
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import RATE, encode


def telling(layer: int, size: int = 400, seed: int = 0) -> tuple[Any, Any]:
    """Vectors of four layers of different sizes, of which one tells three classes."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, size)
    features = rng.standard_normal((size, 4, 8)).astype(np.float32)
    features[:, layer, :3] += 3.0 * np.eye(3, dtype=np.float32)[classes]
    return features * np.array([1.0, 50.0, 0.1, 7.0], np.float32)[:, None] + 2.0, classes


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_layer_that_tells_is_found_whatever_its_size(layer: int) -> None:
    probe = fitted(*telling(layer), 3, 1e-4, True)
    assert int(probe.shares_L.argmax()) == layer and probe.shares_L[layer] > 0.6
    assert probe.weights_L.sum() == pytest.approx(1.0)
    features, classes = telling(layer, seed=1)
    assert (probe.classes(features) == classes).mean() > 0.9
    uniform = fitted(*telling(layer), 3, 1e-4, False)
    assert np.allclose(uniform.shares_L, 0.25)


def test_one_layer_is_scikit_learns_logistic_regression() -> None:
    features, classes = telling(0, 300)
    mine = fitted(features[:, :1], classes, 3, 1e-3, False)
    scaled = features[:, 0] - features[:, 0].mean(0)
    scaled /= np.sqrt(np.square(scaled).mean())
    theirs = LogisticRegression(C=1 / (2 * 1e-3 * len(classes)), max_iter=500, tol=1e-8).fit(scaled, classes)
    assert (mine.classes(features[:, :1]) == theirs.predict(scaled)).mean() > 0.99


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory, wav2vec2_folder: Path) -> Path:
    """Tones of two heights from recordings of three sessions, all layers pooled."""
    made = tmp_path_factory.mktemp("probe")
    rng, lines = np.random.default_rng(0), []
    for number in range(18):
        time = np.arange(RATE) / RATE
        hertz = (220.0, 1760.0)[number % 2] * (1 + 0.02 * rng.standard_normal())
        sound = 0.3 * np.sin(2 * np.pi * hertz * time) + 0.01 * rng.standard_normal(RATE)
        (made / f"{number}.wav").write_bytes(encode((sound * 32_767).astype(np.int16)))
        told = {"audio_filepath": f"{number}.wav", "height": ("low", "high")[number % 2], "session": number // 6}
        lines.append(json.dumps({**told, "alike": "x"}))
    (made / "in.jsonl").write_text("\n".join(lines))
    run(made / "in.jsonl", made / "vectors", "embed", model=wav2vec2_folder, layers="all", pool="mean", dtype="fp32")
    return made


def test_labels_are_told_and_the_weights_make_a_mixture(
    vectors: Path, audiomill: Any, tmp_path: Path, wav2vec2_folder: Path
) -> None:
    done = audiomill("probe", str(vectors / "vectors"), "--by", "height", "--output", "probe", "--quiet")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert found["classes"] == {"low": 9, "high": 9} and found["folds"] == 5
    assert found["accuracy"]["mixture, learned"] > 0.9 and "mixture, learned" in done.stdout
    assert "<svg" in (tmp_path / "probe" / "probe.html").read_text()
    run(
        vectors / "0.wav",
        tmp_path / "mixed",
        "embed",
        model=wav2vec2_folder,
        layer_weights=tmp_path / "probe" / "weights.json",
        pool="mean",
    )
    (mixed,) = rows(tmp_path / "mixed", "embeddings")
    single = {row["layer"]: row["values"] for row in rows(vectors / "vectors", "embeddings")[: len(found["weights"])]}
    expected = sum(weight * np.array(single[layer]) for layer, weight in enumerate(found["weights"]))
    assert np.abs(np.array(mixed["values"]) - expected).max() < 1e-2


def test_labels_of_a_file_are_joined_by_name_and_groups_stay_together(
    vectors: Path, audiomill: Any, tmp_path: Path
) -> None:
    lines = ["path,tone,room"] + [f"{n}.wav,{n % 2},{n // 6}" for n in range(16)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    arguments = ("--labels", "labels.csv", "--by", "tone", "--group", "room", "--output", "out", "--quiet")
    done = audiomill("probe", str(vectors / "vectors"), *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "probe.json").read_text())["folds"] == 3, "as many as there are groups"
    assert "2 without a label" in done.stdout


def test_what_cannot_be_probed_is_one_line(
    vectors: Path, audiomill: Any, tmp_path: Path, wav2vec2_folder: Path
) -> None:
    run(vectors / "0.wav", tmp_path / "frames", "embed", model=wav2vec2_folder)
    (tmp_path / "other.csv").write_text("path,height\nelsewhere.wav,low\n")
    (tmp_path / "none.csv").write_text("path,width\n0.wav,low\n")
    (tmp_path / "two.csv").write_text("path,height\n0.wav,low\n1.wav,high\n2.wav,low\n")
    pooled = str(vectors / "vectors")
    asked = [
        (("frames", "--by", "height"), "holds frames; a probe reads one vector a segment"),
        ((pooled, "--by", "size"), "--by size: no recording of"),
        ((pooled, "--by", "alike"), "only one class (x): expected labels of two or more"),
        ((pooled, "--by", "height", "--labels", "other.csv"), "labels are joined by id, path or file name"),
        ((pooled, "--by", "height", "--labels", "none.csv"), "expected rows with a column height"),
        ((pooled, "--by", "height", "--labels", "two.csv"), "high: only one group"),
        ((pooled, "--by", "height", "--labels", "no.csv"), "no such file"),
        ((pooled, "--by", "height", "--pool", "max"), "--pool max: the output holds mean"),
        ((pooled, "--by", "height", "--folds", "1"), "--folds 1: expected 2 or more"),
    ]
    for arguments, told in asked:
        done = audiomill("probe", *arguments, "--output", "out", "--quiet")
        assert done.returncode in (1, 2) and told in done.stderr and done.stderr.count("\n") == 1, done.stderr
