"""k-means: against scikit-learn, reproducible, streamed, and other people's codebooks read without unpickling."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score

from audiomill.config.fields import build
from audiomill.config.jobs import KmeansJobConfig
from audiomill.errors import InputError, UsageError
from audiomill.models.codes.codebooks import read_codebook
from audiomill.models.codes.km_files import centroids_of
from audiomill.models.codes.lloyd import adjusted_rand, best_fit, lloyd, plus_plus
from audiomill.runs.kmeans import fit_codebook
from audiomill.stages.sample import Reservoir
from audiomill.storage.fs import Place
from audiomill_jobs.main import command_line
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import encode, noise

CPU = torch.device("cpu")


def blobs(num_clusters: int = 8, each: int = 200, width: int = 6, spread: float = 0.3) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(0)
    centres = random.normal(size=(num_clusters, width)) * 4
    frames = np.concatenate([c + spread * random.normal(size=(each, width)) for c in centres]).astype(np.float32)
    return frames[random.permutation(len(frames))] - frames.mean(0)


def test_steps_equal_scikit_learn_from_the_same_start() -> None:
    frames = blobs()
    start = frames[:8]
    for steps in (1, 3, 20):
        ours = lloyd(torch.from_numpy(frames), torch.from_numpy(start), steps, tolerance=0.0)
        theirs = KMeans(8, init=start, n_init=1, max_iter=steps, tol=0, algorithm="lloyd").fit(frames)
        assert np.abs(ours.centroids_KD - theirs.cluster_centers_).max() < 1e-4
        assert (ours.labels_N == theirs.labels_).all()
        assert ours.inertia * len(frames) == pytest.approx(theirs.inertia_, rel=1e-4)


def test_an_empty_cluster_moves_to_the_farthest_frame_as_in_scikit_learn() -> None:
    frames = blobs()
    start = np.concatenate([frames[:7], np.full((1, 6), 1e3, np.float32)])
    ours = lloyd(torch.from_numpy(frames), torch.from_numpy(start), 30, tolerance=0.0)
    theirs = KMeans(8, init=start, n_init=1, max_iter=30, tol=0, algorithm="lloyd").fit(frames)
    assert np.bincount(ours.labels_N, minlength=8).min() > 0
    assert ours.inertia * len(frames) == pytest.approx(theirs.inertia_, rel=1e-4)


def test_the_start_finds_every_blob_and_the_seeds_agree() -> None:
    frames = blobs()
    fit, report = best_fit(frames, 8, [0, 1, 2], 50, CPU)
    theirs = KMeans(8, n_init=10, random_state=0).fit(frames)
    assert fit.inertia * len(frames) == pytest.approx(theirs.inertia_, rel=1e-3)
    assert report["adjusted_rand"] == pytest.approx(1.0) and (report["num_empty"], report["num_tiny"]) == (0, 0)
    assert report["perplexity"] == pytest.approx(8.0, rel=1e-3)
    again, _ = best_fit(frames, 8, [0, 1, 2], 50, CPU)
    assert (again.centroids_KD == fit.centroids_KD).all()


def test_plus_plus_is_a_better_start_than_chance() -> None:
    frames = torch.from_numpy(blobs(20, 100))
    ours = [lloyd(frames, plus_plus(frames, 20, np.random.default_rng(s)), 0).inertia for s in range(5)]
    chance = [
        lloyd(frames, frames[torch.from_numpy(np.random.default_rng(s).choice(len(frames), 20))], 0).inertia
        for s in range(5)
    ]
    assert max(ours) < min(chance)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=80))
def test_the_adjusted_rand_index_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(labels) for labels in zip(*pairs, strict=True))
    assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-9)


@given(st.permutations(range(12)), st.integers(1, 40))
def test_the_sample_does_not_depend_on_the_order_in_which_frames_come(order: list[int], size: int) -> None:
    def sample(number: int) -> pa.Table:
        random = np.random.default_rng(number)
        count = int(random.integers(0, 30))
        columns = {"priorities": random.random(count), "values": random.normal(size=2 * count).astype(np.float32)}
        return pa.table({name: pa.LargeListArray.from_arrays([0, len(v)], pa.array(v)) for name, v in columns.items()})

    found = []
    for numbers in (range(12), order):
        reservoir = Reservoir(size, 2)
        for number in numbers:
            reservoir.add(sample(number))
        found.append(reservoir.frames())
    assert (found[0] == found[1]).all() and len(found[0]) <= size


# ---------------------------------------------------------------------------------------------------------- the job


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kmeans")
    for number in range(6):
        (folder / f"{number}.wav").write_bytes(encode(noise(16_000 * (number + 1), number)))
    (folder / "broken.wav").write_bytes(b"no audio")
    return folder


def fit(corpus: Path, output: Path, model: Path | str, **options: Any) -> dict[str, Any]:
    values = {"engine": "local", "quiet": True, "clusters": 12, "layer": 1, "max_frames": 500, "num_seeds": 2}
    names = {"inputs": (str(corpus),), "output": str(output), "model": str(model)}
    return fit_codebook(build(KmeansJobConfig, {**values, **names, **options}), Console(quiet=True))


def test_a_codebook_is_fitted_kept_and_used(tmp_path: Path, corpus: Path, wav2vec2_folder: Path) -> None:
    report = fit(corpus, tmp_path / "km12.safetensors", wav2vec2_folder)
    assert report["num_frames"] == 500 and report["rejections"] == {"not_audio": 1}
    assert report == json.loads((tmp_path / "km12.json").read_text())
    assert 0 < report["inertia"] < report["variance"] and 1 < report["perplexity"] <= 12
    codebook = read_codebook(Place(str(tmp_path / "km12.safetensors")), None)
    assert (codebook.centroids_VD.shape, codebook.layer, codebook.fingerprint) == ((12, 32), 1, report["fingerprint"])
    assert not (tmp_path / "km12.safetensors.work").exists()
    run(corpus, tmp_path / "out", "encode", model=wav2vec2_folder, codebook=tmp_path / "km12.safetensors")
    codes = np.concatenate([row["codes"] for row in rows(tmp_path / "out", "codes")])
    assert set(codes) == set(range(12)) and {row["quantizer"] for row in rows(tmp_path / "out", "codes")} == {"km12"}


def test_the_seed_decides_and_parts_and_batches_do_not(tmp_path: Path, corpus: Path, wav2vec2_folder: Path) -> None:
    found = []
    for number, options in enumerate([{}, {"part_seconds": 3, "batch_seconds": 4}, {"seed": 5}]):
        path = tmp_path / f"{number}.safetensors"
        fit(corpus, path, wav2vec2_folder, **options)
        found.append(read_codebook(Place(str(path)), None).centroids_VD)
    assert np.abs(found[0] - found[1]).max() < 1e-4
    fit(corpus, tmp_path / "again.safetensors", wav2vec2_folder)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "0.safetensors").read_bytes()
    assert np.abs(found[0] - found[2]).max() > 1e-2


def test_some_hours_of_the_input_are_enough(tmp_path: Path, corpus: Path, wav2vec2_folder: Path) -> None:
    report = fit(corpus, tmp_path / "k.safetensors", wav2vec2_folder, audio_hours=5 / 3600)
    assert 5 <= report["audio_s"] <= 5 + 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "km.bin"}, "ends with .safetensors"),
        ({"clusters": 1}, "--clusters 1"),
        ({"clusters": 400}, "expected at least 800 frames"),
        ({"layer": 9}, "hidden states 0 to 2"),
    ],
)
def test_wrong_usage_is_said_in_one_line(
    tmp_path: Path, corpus: Path, wav2vec2_folder: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        fit(corpus, options.pop("output", tmp_path / "k.safetensors"), wav2vec2_folder, **options)
    (tmp_path / "k.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="exists"):
        fit(corpus, tmp_path / "k.safetensors", wav2vec2_folder)


# ---------------------------------------------------------------------------------------------- other people's files


@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
@pytest.mark.parametrize("way", [*range(2, 6), "joblib", "zlib", "gzip", "bz2", "lzma"])
def test_codebooks_of_scikit_learn_are_read(tmp_path: Path, kind: Any, way: Any) -> None:
    model = kind(4, n_init=1, random_state=0).fit(blobs(4))
    sink = io.BytesIO()
    if isinstance(way, int):
        pickle.dump(model, sink, protocol=way)
    else:
        joblib.dump(model, sink, compress=0 if way == "joblib" else (way, 3))
    assert (centroids_of(sink.getvalue(), "km") == model.cluster_centers_.astype(np.float32)).all()


def test_a_pickle_that_would_run_code_runs_none(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            import os

            return os.mkdir, (str(tmp_path / "made"),)

    for content in (pickle.dumps(Evil()), pickle.dumps({"cluster_centers_": Evil()}), b"", b"\x80\x04K", b"PK\x03\x04"):
        with pytest.raises(InputError):
            centroids_of(content, "evil.km")
    assert not (tmp_path / "made").exists()


def test_the_codebook_command_converts(tmp_path: Path) -> None:
    model = KMeans(4, n_init=1, random_state=0).fit(blobs(4))
    joblib.dump(model, tmp_path / "km.bin")
    target = tmp_path / "km.safetensors"
    done = CliRunner().invoke(
        command_line, ["codebook", str(tmp_path / "km.bin"), "--layer", "6", "--output", str(target)]
    )
    assert done.exit_code == 0 and "4 entries of 6 values, layer 6" in done.output
    codebook = read_codebook(Place(str(target)), None)
    assert (codebook.centroids_VD == model.cluster_centers_).all() and codebook.layer == 6
    assert codebook.fingerprint is None


def test_codes_of_the_spectrogram_are_the_nearest_entries(tmp_path: Path, corpus: Path) -> None:
    fit(corpus, tmp_path / "km.safetensors", "log-mel://", layer=0)
    options = {"model": "log-mel://", "segment": "none"}
    run(corpus, tmp_path / "codes", "encode", codebook=tmp_path / "km.safetensors", **options)
    run(corpus, tmp_path / "vectors", "embed", layers="0", dtype="fp32", **options)
    centroids = read_codebook(Place(str(tmp_path / "km.safetensors")), None).centroids_VD
    vectors = {row["segment_id"]: row for row in rows(tmp_path / "vectors", "embeddings")}
    assert vectors
    for row in rows(tmp_path / "codes", "codes"):
        values = np.asarray(vectors[row["segment_id"]]["values"], np.float64).reshape(-1, centroids.shape[1])
        distances_FV = ((values[:, None] - centroids) ** 2).sum(-1)
        codes_F = np.asarray(row["codes"])
        chosen_F = np.take_along_axis(distances_FV, codes_F[:, None], axis=1)[:, 0]
        # Two entries can be equally near but for the last digit, and processors add in another order.
        np.testing.assert_allclose(chosen_F, distances_FV.min(-1), rtol=1e-4, atol=1e-4)
        assert len(np.unique(codes_F)) > 1
