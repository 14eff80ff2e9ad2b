"""Models over a Ray Dataset: batch and block sizes change nothing, and a bad row keeps its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import soundfile

import audiomill
from audiomill.errors import UsageError
from audiomill.ray import Embedder, Encoder, Transcriber
from tests.support.synth import RATE, encode, noise

NONE = {"segment": "none"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Bytes and paths as Hugging Face stores them, and two rows that are no audio."""
    path = tmp_path_factory.mktemp("sound") / "a.flac"
    soundfile.write(path, noise(2 * RATE, seed=9), RATE)
    rows = [{"bytes": encode(noise(RATE + 4_000 * n, seed=n)), "path": f"{n}.wav"} for n in range(5)]
    rows[2:2] = [
        {"bytes": b"no audio", "path": "bad.wav"},
        {"bytes": None, "path": str(path)},
        {"bytes": None, "path": None},
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"number": pa.array(range(len(rows))), "audio": pa.array(rows, kind)})


@pytest.mark.parametrize(
    ("blocks", "batch_size"),
    [(3, 2), *(pytest.param(*each, marks=pytest.mark.nightly) for each in ((1, 3), (4, 1), (3, 100)))],
)
def test_texts_do_not_depend_on_batches_and_blocks_and_bad_rows_keep_their_place(
    ray_session: Any, table: pa.Table, blocks: int, batch_size: int
) -> None:
    import ray

    expected = Transcriber("fake://", **NONE)(table)
    reasons = [row and row["reason"] for row in expected.column("rejection").to_pylist()]
    assert reasons == [None, None, "not_audio", None, "invalid_array", None, None, None]
    assert [bool(text) for text in expected.column("text").to_pylist()] == [reason is None for reason in reasons]
    dataset = (
        ray.data.from_arrow(table)
        .repartition(blocks)
        .map_batches(
            Transcriber,
            fn_constructor_args=("fake://",),
            fn_constructor_kwargs=NONE,
            batch_format="pyarrow",
            batch_size=batch_size,
            concurrency=1,
        )
    )
    found = sorted(dataset.take_all(), key=lambda row: row["number"])
    for row, wanted in zip(found, expected.to_pylist(), strict=True):
        assert (row["text"], row["language"], row["duration_s"]) == (
            wanted["text"],
            wanted["language"],
            wanted["duration_s"],
        )
        assert row["rejection"] == wanted["rejection"]
        mine, theirs = row["segments"] or [], wanted["segments"] or []
        assert [(each["start_s"], each["text"]) for each in mine] == [
            (each["start_s"], each["text"]) for each in theirs
        ]


def test_vectors_and_codes_are_rows_of_the_tables(table: pa.Table) -> None:
    sounds = table.take([0, 2])
    vectors = Embedder("fake://", layers="1", **NONE)(sounds).column("embeddings")
    codes = Encoder("fake://", **NONE)(sounds).column("codes")
    with audiomill.load("fake://", **NONE) as engine:
        content = table.column("audio")[0].as_py()
        embedding, encoding = engine.embed(content, layers="1"), engine.encode(content)
    assert np.array_equal(vectors[0].as_py()[0]["values"], embedding.vectors[0].values)
    assert [row["codes"] for row in codes[0].as_py()] == [each.values.tolist() for each in encoding.codes]
    assert vectors[1].as_py() is None and codes[1].as_py() is None


def test_batches_with_and_without_good_rows_have_one_schema(table: pa.Table) -> None:
    """ray-project/ray#53529: blocks of other types end a pipeline."""
    for kind, options in ((Transcriber, {}), (Embedder, {"layers": "1"}), (Encoder, {})):
        transform = kind("fake://", **NONE, **options)
        kinds = {transform(rows).schema for rows in (table, table.slice(2, 1), table.slice(0, 1), table.slice(0, 0))}
        assert len(kinds) == 1


def test_a_hugging_face_dataset_is_mapped_too(table: pa.Table, tmp_path: Path) -> None:
    dataset = datasets.Dataset(table).with_format("arrow")
    transcriber = Transcriber("fake://", **NONE)
    mapped = dataset.map(transcriber, batched=True, batch_size=3, cache_file_name=str(tmp_path / "cache.arrow"))
    assert mapped[:]["text"].to_pylist() == transcriber(table).column("text").to_pylist()


def test_arrays_take_the_rate_of_their_row(tmp_path: Path) -> None:
    sound = noise(RATE)
    rows = pa.table({"sound": [sound.tolist(), sound[::2].tolist()], "hz": [RATE, RATE // 2]})
    result = Transcriber("fake://", column="sound", rate_column="hz", prefix="model_", **NONE)(rows)
    assert result.column("model_duration_s").to_pylist() == [1.0, 1.0]
    plain = Transcriber("fake://", column="sound", rate=RATE, **NONE)(rows)
    assert plain.column("duration_s").to_pylist() == [1.0, 0.5]


def test_a_batch_that_cannot_be_used_says_what_to_change(table: pa.Table) -> None:
    transcriber = Transcriber("fake://", **NONE)
    with pytest.raises(UsageError, match="batch_format"):
        transcriber({"audio": np.zeros(3)})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="column="):
        transcriber(table.rename_columns(["number", "sound"]))
    with pytest.raises(UsageError, match="prefix="):
        transcriber(table.rename_columns(["text", "audio"]))
    with pytest.raises(UsageError, match="no column hz"):
        Transcriber("fake://", rate_column="hz", **NONE)(table)
    assert Transcriber("fake://", **NONE)(table.slice(0, 0)).num_rows == 0
