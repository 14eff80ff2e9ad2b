"""Object storage: a real S3 server over HTTP, throttled and cut off, gives what a local folder gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.support import corpus
from tests.support.faulty_proxy import FaultyProxy
from tests.support.jobs_by_hand import check_accounts, rows, run
from tests.support.scale import daily

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def faulty(s3_endpoint: str) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(s3_endpoint, throttled=0.08, dropped=0.08)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory, voices: Any) -> Path:
    """Uploads every kind of source and the broken files; gives the same as a local folder."""
    folder = tmp_path_factory.mktemp("bucket")
    corpus.write_sources(folder / "sources", voices)
    corpus.write_broken(folder / "broken", voices[1][0])
    fs = fsspec.filesystem("s3", endpoint_url=s3_endpoint)
    fs.mkdir("corpus")
    fs.put(str(folder) + "/", "corpus/", recursive=True)
    return folder


KINDS = (
    "sources/audio",
    "sources/shard.tar",
    "sources/hf.parquet",
    "sources/nemo.jsonl",
    "sources/cuts.jsonl",
    "broken",
)


def test_a_throttled_and_interrupted_bucket_gives_the_tables_of_a_folder(
    faulty: FaultyProxy, bucket: Path, tmp_path: Path
) -> None:
    options = {"endpoint_url": faulty.url}
    kinds = daily(KINDS[1:5], KINDS)
    inputs = [f"s3://corpus/{kind}" for kind in kinds]
    run(inputs, "s3://corpus/out", storage_options=options, part_seconds=10)
    check_accounts("s3://corpus/out", **options)
    run([bucket / kind for kind in kinds], tmp_path / "out", part_seconds=10)
    assert faulty.num_throttled > 3 and faulty.num_dropped > 3, "the faults were really there"
    for table, columns in (
        ("recordings", ("member", "text", "duration_s", "reference")),
        ("rejections", ("member", "reason")),
    ):
        remote, local = (
            sorted((Path(r["source"]).name, *(str(r[c]) for c in columns)) for r in rows(*where[:1], table, **where[1]))
            for where in (("s3://corpus/out", options), (tmp_path / "out", {}))
        )
        assert remote == local


def test_a_rerun_on_a_bucket_does_nothing_and_overwrite_starts_anew(s3_endpoint: str, bucket: Path) -> None:
    options = {"endpoint_url": s3_endpoint}
    assert run("s3://corpus/sources/audio", "s3://corpus/again", storage_options=options)["num_parts_this_run"] == 1
    assert run("s3://corpus/sources/audio", "s3://corpus/again", storage_options=options)["num_parts_this_run"] == 0
    assert (
        run("s3://corpus/sources/audio", "s3://corpus/again", storage_options=options, overwrite=True)[
            "num_parts_this_run"
        ]
        == 1
    )


def test_weights_from_a_bucket(
    s3_endpoint: str, wav2vec2_folder: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fs = fsspec.filesystem("s3", endpoint_url=s3_endpoint)
    fs.put(str(wav2vec2_folder) + "/", "corpus/weights/", recursive=True)
    options = {"endpoint_url": s3_endpoint}
    run(
        "s3://corpus/sources/audio",
        "s3://corpus/ctc",
        storage_options=options,
        model="s3://corpus/weights",
        segment="fixed",
    )
    run(bucket / "sources" / "audio", tmp_path / "ctc", model=str(wav2vec2_folder), segment="fixed")
    texts = [
        [r["text"] for r in rows(*where[:1], "recordings", **where[1])]
        for where in (("s3://corpus/ctc", options), (tmp_path / "ctc", {}))
    ]
    assert texts[0] == texts[1] and all(texts[0])


def test_audio_over_http_and_a_missing_page(s3_endpoint: str, bucket: Path, tmp_path: Path) -> None:
    fs = fsspec.filesystem("s3", endpoint_url=s3_endpoint)
    fs.call_s3("put_object_acl", Bucket="corpus", Key="sources/audio/0.flac", ACL="public-read")
    run([f"{s3_endpoint}/corpus/sources/audio/0.flac", f"{s3_endpoint}/corpus/none.flac"], tmp_path / "out")
    check_accounts(tmp_path / "out")
    (rejection,) = rows(tmp_path / "out", "rejections")
    assert rejection["reason"] in ("not_found", "unreadable") and len(rows(tmp_path / "out", "recordings")) == 1


def test_memory_urls_work_in_one_process(voices: Any) -> None:
    from audiomill.storage.fs import Place
    from tests.support.synth import encode

    Place("memory://in/a.wav").write(encode(voices[1][0]))
    run("memory://in", "memory://out")
    check_accounts("memory://out")
