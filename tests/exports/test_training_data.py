"""Vectors and codes as training data: nothing lost, nothing in two splits, readable by those who will read it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import audiomill
from audiomill.errors import InputError
from audiomill.exports.splits import shares_of, split_of_recordings
from audiomill.storage.fs import Place
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import RATE, encode, noise

SPEAKERS = ("ann", "bob", "cleo")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, wav2vec2_folder: Path) -> Path:
    """Twelve recordings of three speakers, with vectors of frames, pooled vectors, and codes."""
    made = tmp_path_factory.mktemp("training-data")
    lines = []
    for number in range(12):
        (made / f"{number}.wav").write_bytes(encode(noise((number % 4 + 1) * RATE, number)))
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "speaker": SPEAKERS[number % 3]}))
    (made / "in.jsonl").write_text("\n".join(lines))
    np.save(made / "km.npy", np.random.default_rng(0).standard_normal((8, 32)).astype(np.float32))
    common: dict[str, Any] = {"model": wav2vec2_folder, "part_seconds": 8.0}
    run(made / "in.jsonl", made / "vectors", "embed", layers="1,2", dtype="fp32", **common)
    run(made / "in.jsonl", made / "pooled", "embed", pool="mean", **common)
    run(
        made / "in.jsonl",
        made / "units",
        "encode",
        codebook=made / "km.npy",
        codebook_layer=1,
        deduplicate=True,
        **common,
    )
    return made


def expected(output: Path, **only: Any) -> dict[str, Any]:
    return dict(iter(audiomill.open_output(str(output), **only)))


def exported(audiomill: Any, *arguments: str) -> str:
    done = audiomill("export", *arguments)
    assert done.returncode == 0, done.stderr
    found: str = done.stdout
    return found


def test_datasets_reads_the_folder_with_its_splits(place: Path, audiomill: Any, tmp_path: Path) -> None:
    metadata = exported(
        audiomill, str(place / "vectors"), "--format", "datasets", "--to", "hf", "--only", "layer=2", "--split",
        "train=0.7,dev=0.3", "--split-by", "speaker", "--columns", "source,duration_s",
    )  # fmt: skip
    found = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    assert set(found) == {"train", "dev"} and metadata.startswith(f"train: {len(found['train'])} samples")
    speaker_of = {row["id"]: json.loads(row["metadata"])["speaker"] for row in rows(place / "vectors", "recordings")}
    speakers = {split: {speaker_of[row["recording_id"]] for row in found[split]} for split in found}
    assert not speakers["train"] & speakers["dev"] and speakers["train"] | speakers["dev"] == set(SPEAKERS)
    arrays = expected(place / "vectors", layer=2)
    assert sum(len(found[split]) for split in found) == len(arrays)
    for row in found["dev"]:
        assert (np.array(row["array"], np.float32) == arrays[row["segment_id"]]).all()
        assert row["source"].endswith(".wav") and row["duration_s"] > 0


def test_webdataset_shards_hold_arrays_and_json_side_by_side(place: Path, audiomill: Any, tmp_path: Path) -> None:
    exported(audiomill, str(place / "units"), "--format", "webdataset", "--to", "tars")
    arrays, seen = expected(place / "units"), set()
    for path in sorted((tmp_path / "tars").glob("train-*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert [name.rsplit(".", 1)[1] for name in names] == ["npy", "json"] * (len(names) // 2)
            for npy, metadata in zip(names[::2], names[1::2], strict=True):
                row = json.load(tar.extractfile(metadata))  # type: ignore[arg-type]
                codes_FK = np.load(io.BytesIO(tar.extractfile(npy).read()), allow_pickle=False)  # type: ignore[arg-type]
                assert (codes_FK[:, 0] == arrays[row["segment_id"]]).all()
                seen.add(row["segment_id"])
    assert seen == set(arrays)


def test_numpy_arrays_are_mapped_and_cut_by_their_offsets(place: Path, audiomill: Any, tmp_path: Path) -> None:
    for output, only in (("vectors", ("--only", "layer=1")), ("pooled", ())):
        exported(
            audiomill, str(place / output), "--format", "numpy", "--to", f"np-{output}", *only, "--dtype", "float32"
        )
        folder = tmp_path / f"np-{output}"
        values = np.load(folder / "train-00000.npy", mmap_mode="r")
        offsets = np.load(folder / "train-00000.offsets.npy")
        lines = [json.loads(line) for line in (folder / "train-00000.jsonl").open()]
        arrays = expected(place / output, dtype="float32", **({"layer": 1} if only else {}))
        assert len(lines) == len(arrays) == len(offsets) - 1
        for line, first, last in zip(lines, offsets, offsets[1:], strict=False):
            assert (values[first:last] == arrays[line["segment_id"]]).all()


def test_shards_are_closed_at_their_size(place: Path, tmp_path: Path) -> None:
    from audiomill.exports.shard_files import Sample, write_shards

    samples = [Sample(str(n), np.zeros((10, 4), np.float32), {"recording_id": str(n)}) for n in range(7)]
    split_of = {str(n): "train" for n in range(7)}
    write_shards(iter(samples), "numpy", Place(str(tmp_path / "out")), split_of, {"train": 1.0}, 400)
    sizes = [len(np.load(path)) for path in sorted((tmp_path / "out").glob("train-?????.npy"))]
    assert sizes == [30, 30, 10]


def test_units_are_tagged_split_and_keep_their_durations(place: Path, audiomill: Any, tmp_path: Path) -> None:
    exported(
        audiomill, str(place / "units"), "--format", "txt", "--to", "lm", "--units", "tagged", "--durations", "--ids", "--split",
        "train=0.8,dev=0.2",
    )  # fmt: skip
    frames: dict[str, list[int]] = {}
    for row in rows(place / "units", "codes"):
        frames.setdefault(row["recording_id"], []).extend(np.repeat(row["codes"], row["durations"]).tolist())
    seen = set()
    for split in ("train", "dev"):
        units, lasting = (
            (tmp_path / "lm" / f"{split}{end}.txt").read_text().splitlines() for end in ("", ".durations")
        )
        assert units
        for line, other in zip(units, lasting, strict=True):
            (name, text), (_, numbers) = line.split("\t"), other.split("\t")
            codes = [int(unit.removeprefix("<u").removesuffix(">")) for unit in text.split()]
            assert np.repeat(codes, list(map(int, numbers.split()))).tolist() == frames[name]
            seen.add(name)
    assert seen == set(frames)


def test_splits_follow_the_seconds_and_are_the_same_each_time(place: Path) -> None:
    output = Place(str(place / "vectors"))
    shares = shares_of("train=0.6,dev=0.2,test=0.2")
    found = split_of_recordings(output, shares, "recording", 0)
    seconds = {row["id"]: row["duration_s"] for row in rows(place / "vectors", "recordings")}
    for name, share in shares.items():
        got = sum(value for identity, value in seconds.items() if found[identity] == name) / sum(seconds.values())
        assert abs(got - share) < 0.15
    assert (
        found
        == split_of_recordings(output, shares, "recording", 0)
        != split_of_recordings(output, shares, "recording", 1)
    )


def test_ranks_and_workers_share_a_stream_without_rest(place: Path) -> None:
    data = audiomill.open_output(str(place / "vectors"), layer=2)
    for world in (1, 2, 40):
        streams = [data.stream(1, rank=rank, world_size=world) for rank in range(world)]
        assert sorted(sample[0] for stream in streams for sample in stream) == sorted(data.ids)
    seen: list[str] = []
    for rank in range(2):
        stream = data.stream(1, rank=rank, world_size=2)
        seen += [sample[0] for sample in torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2)]
    assert sorted(seen) == sorted(data.ids)
    with pytest.raises(InputError, match="rank=2: expected 0 to 1"):
        data.stream(rank=2, world_size=2)


def test_what_cannot_be_exported_is_one_line(place: Path, audiomill: Any, tmp_path: Path) -> None:
    vectors = str(place / "vectors")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    asked = [
        ((vectors, "--format", "numpy"), "name a folder with --to"),
        ((vectors, "--format", "numpy", "--to", "a"), "holds several kinds of rows; choose one of"),
        ((vectors, "--format", "numpy", "--to", "a", "--only", "layer"), "--only layer: expected NAME=VALUE"),
        ((vectors, "--format", "numpy", "--to", "full", "--only", "layer=1"), "is not empty"),
        ((vectors, "--format", "numpy", "--to", "a", "--only", "layer=1", "--split", "a=0.5"), "that add up to 1"),
        (
            (vectors, "--format", "numpy", "--to", "a", "--only", "layer=1", "--split-by", "room"),
            "has no such column; expected recording, id, source, language or a column of its manifest (speaker)",
        ),
        (
            (vectors, "--format", "numpy", "--to", "a", "--only", "layer=1", "--split", "a=0.999,b=0.001"),
            "nothing is left for b: 12 group(s) by recording",
        ),
        ((str(place / "units"), "--format", "txt", "--split", "a=1"), "--durations and --split write files"),
    ]
    for arguments, metadata in asked:
        done = audiomill("export", *arguments)
        assert done.returncode in (1, 2) and metadata in done.stderr and done.stderr.count("\n") == 1, done.stderr
