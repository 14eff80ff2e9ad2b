"""Sources, manifests, shards, the ledger and atomic files."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from audiomill import schema
from audiomill.config.stages import DecodeConfig, PlanConfig
from audiomill.errors import ConfigMismatchError, InputError, UsageError
from audiomill.sources.entry import Entry
from audiomill.sources.listing import list_inputs
from audiomill.sources.shards import ShardReader
from audiomill.sources.tar import Window
from audiomill.stages import plan as stages
from audiomill.stages.plan import assign_parts, header_durations, planned_table
from audiomill.storage import ledger
from audiomill.storage.fs import Place, is_transient, remove_stale_temporaries, retried
from audiomill.storage.ledger import split_by_part
from audiomill.storage.part_files import to_bytes
from audiomill.tables.outputs import table_names
from tests.support.corpus import SINGLE_FILES, write_sources
from tests.support.synth import encode, tar_bytes, tone


def listed(*inputs: str, audio_root: str | None = None) -> list[Entry]:
    return list(stages.listed(inputs, PlanConfig(audio_root=audio_root), DecodeConfig(), "/nowhere/out").entries)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, voices: Any) -> dict[str, Any]:
    return write_sources(tmp_path_factory.mktemp("sources"), voices)


KINDS = [*SINGLE_FILES, "folder", "glob", "lhotse"]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_source_gives_the_same_bytes(sources: dict[str, Any], voices: Any, name: str) -> None:
    entries = listed(*sources[name])
    assert len(entries) == len(voices) and len({e.id for e in entries}) == len(voices)
    reader = ShardReader({})
    for entry, (pcm, _) in zip(entries, voices, strict=True):
        with reader.open(entry.source, entry.kind, entry.position, entry.size) as handle:
            assert handle.read() == encode(pcm, 16_000, "FLAC")


@pytest.mark.parametrize(
    "name", ["hf.parquet", "plain.parquet", "nemo.jsonl", "table.csv", "table.tsv", "cuts.jsonl", "lhotse"]
)
def test_reference_texts_come_along(sources: dict[str, Any], voices: Any, name: str) -> None:
    assert [e.reference for e in listed(*sources[name])] == [text for _, text in voices]


def test_ids_are_stable_and_independent_of_content(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"one")
    before = [e.id for e in listed(str(tmp_path))]
    (tmp_path / "a.wav").write_bytes(b"another")
    (tmp_path / "0.wav").write_bytes(b"new")
    after = {e.source: e.id for e in listed(str(tmp_path))}
    assert before == [after[str(tmp_path / "a.wav")]]


def test_a_recording_named_twice_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    listing = list_inputs((str(tmp_path), str(tmp_path / "*.wav"), str(tmp_path / "a.wav")), {}, None, "/nowhere")
    assert len(listing.entries) == 1 and listing.num_duplicates == 2


def test_folders_are_recursive_and_count_what_they_ignore(tmp_path: Path) -> None:
    for name in ("a/b/c.wav", "a/d.FLAC", "readme.md", "a/.hidden.wav", "a/d.txt", "out/x.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listing = list_inputs((str(tmp_path),), {}, None, str(tmp_path / "out"))
    assert [Path(e.source).name for e in listing.entries] == ["c.wav", "d.FLAC"]
    assert listing.ignored == {"md": 1}


@pytest.mark.parametrize(
    ("inputs", "words"), [("missing/", "no such file"), ("*.nothing", "nothing matches"), ("empty", "no audio found")]
)
def test_wrong_inputs_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: str, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        listed(inputs)


def manifest(folder: Path, *rows: Any, name: str = "m.jsonl") -> str:
    (folder / name).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(folder / name)


def test_manifest_spans_are_recordings_of_their_own(tmp_path: Path) -> None:
    rows = [{"audio_filepath": "x.wav", "offset": at, "duration": 2.0} for at in (0.0, 2.0)]
    entries = listed(manifest(tmp_path, *rows, {"audio_filepath": "x.wav", "duration": 9.0}))
    assert [(e.span_start_s, e.span_duration_s) for e in entries] == [(0.0, 2.0), (2.0, 2.0), (None, None)]
    assert len({e.id for e in entries}) == 3


@pytest.mark.parametrize(
    "row",
    [
        "not json",
        "[1]",
        {"text": "no path"},
        {"audio_filepath": "x.wav", "offset": -1},
        {"audio_filepath": "x.wav", "duration": "long"},
        {"audio_filepath": 7},
        {"sources": [{"type": "command", "source": "rm x"}]},
    ],
)
def test_a_bad_row_becomes_a_rejection_and_the_rest_goes_on(tmp_path: Path, row: Any) -> None:
    bad, good = listed(manifest(tmp_path, row if row != "[1]" else '"text"', {"audio_filepath": "ok.wav"}))
    assert bad.reason == "bad_manifest_row" and bad.member == "row 1" and good.reason is None


@pytest.mark.parametrize("path", ["../x.wav", "a/../../x.wav"])
def test_relative_paths_cannot_leave_the_manifests_folder(tmp_path: Path, path: str) -> None:
    (entry,) = listed(manifest(tmp_path, {"audio_filepath": path}))
    assert entry.reason == "path_outside_root"


def test_audio_root_confines_absolute_paths(tmp_path: Path) -> None:
    inside, outside = str(tmp_path / "audio" / "x.wav"), "/etc/passwd"
    entries = listed(
        manifest(tmp_path, *({"audio_filepath": p} for p in (inside, outside, "y.wav"))),
        audio_root=str(tmp_path / "audio"),
    )
    assert [e.reason for e in entries] == [None, "path_outside_root", None]
    assert entries[2].source == str(tmp_path / "audio" / "y.wav")


def test_a_remote_manifest_cannot_name_local_files() -> None:
    Place("memory://m/x.jsonl").write(json.dumps({"audio_filepath": "/etc/passwd"}).encode())
    (entry,) = listed("memory://m/x.jsonl")
    assert entry.reason == "path_outside_root"


def test_gzipped_manifests_and_odd_encodings_are_read(tmp_path: Path) -> None:
    content = "\ufeff" + json.dumps({"audio_filepath": "ä.wav", "text": "grüß"}, ensure_ascii=False)
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(content.encode("utf-8")))
    (entry,) = listed(str(tmp_path / "m.jsonl.gz"))
    assert entry.reference == "grüß" and entry.source.endswith("ä.wav")


def test_a_broken_tar_gives_its_members_and_one_rejection(tmp_path: Path) -> None:
    wav = encode(tone(0.5))
    content = tar_bytes({"a.wav": wav, "b.wav": wav})
    second = content.index(b"b.wav")
    (tmp_path / "x.tar").write_bytes(content[:second] + b"\xff" * 600)
    entries = listed(str(tmp_path / "x.tar"))
    assert [(e.member, e.reason) for e in entries] == [("a.wav", None), ("", "unreadable_shard")]


def test_a_tar_that_is_none_is_one_rejection(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"hello" * 1000)
    (tmp_path / "y.parquet").write_bytes(b"hello" * 1000)
    assert [e.reason for e in listed(str(tmp_path / "x.tar"), str(tmp_path / "y.parquet"))] == ["unreadable_shard"] * 2


def test_same_names_in_a_tar_stay_two_recordings(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "x.tar", "w") as shard:
        for content in (b"one", b"two"):
            member = tarfile.TarInfo("../a.wav")
            member.size = 3
            shard.addfile(member, io.BytesIO(content))
    entries = listed(str(tmp_path / "x.tar"))
    assert [e.member for e in entries] == ["../a.wav", "../a.wav#2"]
    reader = ShardReader({})
    assert [reader.open(e.source, e.kind, e.position, e.size).read() for e in entries] == [b"one", b"two"]


def test_a_window_reads_like_the_file_it_shows() -> None:
    content = np.random.default_rng(0).bytes(1000)
    view = io.BufferedReader(Window(io.BytesIO(content), 100, 300))
    assert view.read() == content[100:400]
    assert view.seek(-10, io.SEEK_END) == 290 and view.read(50) == content[390:400]


def test_parts_keep_order_and_shards_together() -> None:
    sources = ["a"] * 4 + ["b"] * 3 + ["c"] * 12
    parts = assign_parts(sources, [10.0] * 19, 50.0)
    assert parts == sorted(parts) and len(set(parts[:4])) == 1 and len(set(parts[4:7])) == 1 and parts[3] != parts[4]
    assert max(parts.count(p) for p in parts) <= 5


def test_a_long_recording_is_a_part_of_its_own() -> None:
    assert assign_parts(["a", "b", "c"], [5.0, 4000.0, 5.0], 60.0) == [0, 1, 2]


def test_the_plan_has_every_entry_once_and_splits_by_part() -> None:
    entries = [Entry(f"/x/{n}.mp3", size=16_000 * 30) for n in range(100)]
    table = planned_table(entries, header_durations(entries, {}), first_part=3, part_seconds=300)
    assert table.schema == schema.PLAN and table.num_rows == 100
    split = split_by_part(table)
    assert list(split) == list(range(3, 13)) and sum(t.num_rows for t in split.values()) == 100


def test_local_writes_are_whole_or_absent(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "deep" / "x"))
    place.write(b"one")
    place.write(b"two")
    assert place.read() == b"two" and os.listdir(tmp_path / "deep") == ["x"]
    assert not place.create(b"three") and place.read() == b"two"
    assert Place(str(tmp_path / "new")).create(b"first")


def test_leftovers_of_dead_processes_are_removed_and_others_kept(tmp_path: Path) -> None:
    import socket

    host = socket.gethostname()
    dead, alive = tmp_path / f".x.tmp-{host}-999999999-ab", tmp_path / f".x.tmp-{host}-{os.getpid()}-ab"
    for path in (dead, alive):
        path.write_bytes(b"x")
    remove_stale_temporaries(Place(str(tmp_path)))
    assert not dead.exists() and alive.exists()


def test_transient_errors_are_retried_and_final_ones_are_not() -> None:
    calls: list[int] = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionResetError("reset")
        return "ok"

    assert retried(flaky) == "ok" and len(calls) == 3
    with pytest.raises(FileNotFoundError):
        retried(lambda: open("/no/such/file"))  # noqa: SIM115
    assert not is_transient(PermissionError()) and is_transient(TimeoutError())


def test_the_guard_names_what_differs(tmp_path: Path) -> None:
    output = Place(str(tmp_path / "out"))
    ledger.guard(output, {"model": "a", "segment": "vad"}, {})
    ledger.guard(output, {"model": "a", "segment": "vad"}, {})
    with pytest.raises(ConfigMismatchError, match=r"--segment was 'vad', now 'fixed'.*--overwrite"):
        ledger.guard(output, {"model": "a", "segment": "fixed"}, {})


def test_overwrite_refuses_to_delete_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.doc"):
        ledger.clear_output(Place(str(tmp_path)), table_names())
    assert (tmp_path / "thesis.doc").exists()


def test_two_planners_at_once_make_one_plan(tmp_path: Path) -> None:
    output = Place(str(tmp_path))
    first = planned_table([Entry("/a.wav")], [None], first_part=0, part_seconds=60)
    second = planned_table([Entry("/b.wav")], [None], first_part=0, part_seconds=60)
    assert ledger.add_to_plan(output, first, 0) and not ledger.add_to_plan(output, second, 0), "the second saw no plan"
    again = planned_table([Entry("/b.wav")], [None], first_part=1, part_seconds=60)
    assert ledger.add_to_plan(output, again, 1)
    plan = ledger.load_plan(output)
    assert plan is not None and plan.column("source").to_pylist() == ["/a.wav", "/b.wav"]


def test_parquet_bytes_are_a_function_of_the_table() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert to_bytes(table) == to_bytes(pa.table({"a": [1, 2], "b": ["x", None]}))


@pytest.mark.timeout(20)
def test_planning_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    table = planned_table(
        listed(str(tmp_path)), header_durations(listed(str(tmp_path)), {}), first_part=0, part_seconds=60
    )
    assert table.column("duration_s").to_pylist() == [None]


def test_missing_drivers_name_the_extra() -> None:
    with pytest.raises(InputError, match="audiomill\\[gcs\\]"):
        _ = Place("gs://bucket/x").fs
    with pytest.raises(InputError, match="unknown kind of URL"):
        _ = Place("nonsense://bucket/x").fs
