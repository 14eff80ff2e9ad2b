"""What training code sees of an output: pairs by index, slice and stream; and other people's readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

import audiomill
from audiomill.errors import InputError
from audiomill.storage import part_files as parquet
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import encode, noise


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, wav2vec2_folder: Path) -> Path:
    """Embeddings of layers 1 and 2 (frames, fp16; pooled, int8) and codes of the fake, in several parts and row groups."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "in").mkdir()
    for number in range(9):
        (folder / "in" / f"{number}.wav").write_bytes(encode(noise(4_000 * (number + 1), number)))
    before, parquet.ROW_GROUP_BYTES = parquet.ROW_GROUP_BYTES, 20_000
    run(folder / "in", folder / "frames", "embed", model=wav2vec2_folder, layers="1,2", part_seconds=5)
    parquet.ROW_GROUP_BYTES = before
    run(folder / "in", folder / "pooled", "embed", model=wav2vec2_folder, pool="mean", dtype="int8")
    run(folder / "in", folder / "codes", "encode")
    run(folder / "in", folder / "runs", "encode", deduplicate=True)
    return folder


def test_a_dataset_gives_the_rows_of_one_kind(outputs: Path) -> None:
    found = audiomill.open_output(str(outputs / "frames"), layer=2)
    expected = [
        (row["segment_id"], row["values"]) for row in rows(outputs / "frames", "embeddings") if row["layer"] == 2
    ]
    assert len(found) == 9 and found.num_row_groups() > 3
    for (name, values), (ours, array) in zip(expected, found, strict=True):
        assert name == ours and array.dtype == np.float16 and (array == np.array(values, np.float16)).all()
    assert [name for name, _ in found[2:5]] == found.ids[2:5] and found[-1][0] == found.ids[-1]
    with pytest.raises(IndexError):
        found[9]


def test_a_choice_is_asked_for_where_there_are_several(outputs: Path) -> None:
    with pytest.raises(InputError, match=r"choose one of.*'layer': 1.*'layer': 2"):
        audiomill.open_output(str(outputs / "frames"))
    with pytest.raises(InputError, match="no rows"):
        audiomill.open_output(str(outputs / "frames"), layer=7)
    with pytest.raises(InputError, match="not by speaker"):
        audiomill.open_output(str(outputs / "frames"), speaker=7)
    with pytest.raises(InputError, match="no finished"):
        audiomill.open_output(str(outputs / "in"))


def test_int8_comes_back_as_floats_near_the_frames_mean(outputs: Path) -> None:
    frames = dict(audiomill.open_output(str(outputs / "frames"), layer=2))
    for name, vector in audiomill.open_output(str(outputs / "pooled")):
        mean = frames[name].astype(np.float32).mean(0)
        assert vector.shape == (32,) and np.linalg.norm(vector - mean) / np.linalg.norm(mean) < 2e-2


def test_codebooks_of_a_segment_come_together(outputs: Path) -> None:
    found = audiomill.open_output(str(outputs / "codes"))
    expected = rows(outputs / "codes", "codes")
    assert len(found) == 9 and found[3][1].tolist() == [row["codes"] for row in expected[6:8]]
    one = audiomill.open_output(str(outputs / "codes"), codebook=1)
    assert one[3][1].tolist() == expected[7]["codes"] and len(one) == 9


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders_see_every_sample_once(outputs: Path, num_workers: int) -> None:
    dataset = audiomill.open_output(str(outputs / "frames"), layer=1)
    for source, options in ((dataset, {"shuffle": True}), (dataset.stream(), {}), (dataset.stream(shuffle_seed=4), {})):
        loader: Any = DataLoader(source, batch_size=None, num_workers=num_workers, **options)  # type: ignore[arg-type]
        found = {name: np.asarray(array) for name, array in loader}
        assert found.keys() == set(dataset.ids)
        assert all((found[name] == array).all() for name, array in dataset)


def test_a_stream_is_shuffled_by_its_seed(outputs: Path) -> None:
    dataset = audiomill.open_output(str(outputs / "frames"), layer=1)
    orders = [[name for name, _ in dataset.stream(shuffle_seed=seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(dataset.ids)


def test_hugging_face_datasets_opens_the_tables(outputs: Path, tmp_path: Path) -> None:
    import datasets

    for name, table in (("frames", "embeddings"), ("pooled", "embeddings"), ("runs", "codes")):
        files = sorted(map(str, (outputs / name / table).glob("*.parquet")))
        found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / name))
        expected = rows(outputs / name, table)
        assert found.num_rows == len(expected)
        column = "values" if table == "embeddings" else "codes"
        assert np.allclose(found[4][column], expected[4][column])


def test_pandas_and_duckdb_open_the_tables(outputs: Path) -> None:
    import duckdb
    import pandas

    frame = pandas.read_parquet(outputs / "pooled" / "embeddings")
    assert np.stack(frame["values"]).shape == (9, 32)
    query = f"SELECT segment_id, len(codes) AS n FROM '{outputs}/runs/codes/*.parquet' WHERE codebook = 0"
    assert len(duckdb.sql(query).fetchall()) == 9


def test_samples_carry_columns_of_other_tables(outputs: Path) -> None:
    found = audiomill.open_output(str(outputs / "frames"), layer=2, columns=["source", "duration_s", "start_s"])
    segments = {row["id"]: row for row in rows(outputs / "frames", "segments")}
    recordings = {row["id"]: row for row in rows(outputs / "frames", "recordings")}
    for name, _, told in found:
        recording = recordings[segments[name]["recording_id"]]
        assert told == {"source": recording["source"], "duration_s": recording["duration_s"], "start_s": 0.0}
    with pytest.raises(InputError, match="no 'smell' in segments or recordings"):
        audiomill.open_output(str(outputs / "frames"), layer=2, columns=["smell"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_padded_and_masked_and_meet_a_layer_in_fp32(outputs: Path, num_workers: int) -> None:
    import torch

    dataset = audiomill.open_output(str(outputs / "frames"), layer=2, dtype="float32", columns=["source"])
    whole = {name: values for name, values, _ in dataset}
    loader: Any = DataLoader(dataset.stream(), batch_size=4, num_workers=num_workers, collate_fn=dataset.collate)
    seen = set()
    for batch in loader:
        assert torch.nn.Linear(32, 5)(batch.values).shape == (*batch.values.shape[:2], 5)
        for row, name in enumerate(batch.ids):
            own = batch.values[row][batch.mask_BF[row]]
            assert (own.numpy() == whole[name]).all() and not batch.values[row][~batch.mask_BF[row]].any()
        seen |= set(batch.ids)
    assert seen == whole.keys()


def test_pooled_vectors_and_codebooks_collate_too(outputs: Path) -> None:
    pooled = audiomill.open_output(str(outputs / "pooled"))
    batch = pooled.collate(pooled[0:3])
    assert batch.values.shape == (3, 32) and batch.mask_BF is None
    codes = audiomill.open_output(str(outputs / "codes"))
    batch = codes.collate(codes[0:3])
    lengths = [array.shape[-1] for _, array in codes[0:3]]
    assert batch.values.shape == (3, 2, max(lengths)) and batch.mask_BF.sum(1).tolist() == lengths
    with pytest.raises(InputError, match="expected one of float16, float32"):
        audiomill.open_output(str(outputs / "pooled"), dtype="double")
