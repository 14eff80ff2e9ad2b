"""Texts and tables that people bring: encodings, quotes, line ends, names of one file, and what stands beside a corpus."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiomill.errors import InputError
from audiomill.sources.delimited import delimited_rows
from audiomill.sources.listing import Listing, list_inputs
from audiomill.sources.manifest_row import BadRow, Note
from audiomill.sources.manifests import read_rows
from audiomill.sources.shards import ShardReader
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute, source_of
from audiomill.text.encodings import UnknownEncoding, decoded, decoded_lines, encoding_of

TEXT = "Größe über alles"


def tone() -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, 0.3 * np.sin(np.arange(16_000) / 8), 16_000, format="WAV", subtype="PCM_16")
    return sink.getvalue()


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def listed(*inputs: Path | str) -> Listing:
    return list_inputs(tuple(map(str, inputs)), {}, None, "/nowhere")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_a_text_is_read_in_the_encoding_that_it_is_in(encoding: str) -> None:
    text, note = decoded(TEXT.encode(encoding))
    assert text == TEXT
    assert (note is None) == encoding.startswith("utf-8")


@pytest.mark.parametrize("content", ["Привет, мир".encode("cp1251"), "日本語".encode("shift-jis"), bytes(range(256))])
def test_a_text_whose_encoding_cannot_be_told_is_refused(content: bytes) -> None:
    with pytest.raises(UnknownEncoding):
        decoded(content)


@given(text=st.text(), cut=st.integers(1, 7))
def test_utf_8_is_always_told_however_it_is_cut_into_chunks(text: str, cut: int) -> None:
    content = text.encode("utf-8", "ignore")
    assert encoding_of(content[at : at + cut] for at in range(0, len(content), cut)) in (
        "utf-8", "utf-8-sig", "utf-16-le", "utf-16-be",  # characters 0 between letters
    )  # fmt: skip


def test_lines_end_at_line_feeds_alone() -> None:
    assert decoded_lines("a\u2028b\u0085c\r\nd\n") == ["a\u2028b\u0085c", "d"]
    assert decoded_lines("") == [] and decoded_lines("a\n\nb") == ["a", "", "b"]


def rows(text: str, is_tab: bool = False) -> tuple[list[dict[str, str]], int]:
    found = [row for _, row in delimited_rows(io.StringIO(text, newline="\n"), "m.csv", is_tab)]
    assert not any(isinstance(row, BadRow) for row in found)
    return [row for row in found if isinstance(row, dict)], sum(isinstance(row, Note) for row in found)


@pytest.mark.parametrize(
    ("text", "texts", "num_notes"),
    [
        ('path,text\na.wav,"He said\nb.wav,two\nc.wav,three\n', ['"He said', "two", "three"], 1),
        ('path,text\na.wav,"He said\nb.wav,"two"\nc.wav,three\n', ['"He said', "two", "three"], 1),
        ('path,text\na.wav,"one\nand more"\nb.wav,two\nc.wav,three\n', ["one\nand more", "two", "three"], 0),
        ('path,text\na.wav,"say ""hi"", now"\nb.wav,two\nc.wav,three\n', ['say "hi", now', "two", "three"], 0),
        ("path;text\na.wav;1,5 Liter\nb.wav;two\nc.wav;three\n", ["1,5 Liter", "two", "three"], 0),
        ("path|text\r\na.wav|one\r\nb.wav|two\r\nc.wav|three\r\n", ["one", "two", "three"], 0),
        ("path\ttext\na.wav\tone\u2028more\nb.wav\ttwo\nc.wav\tthree\n", ["one\u2028more", "two", "three"], 0),
        ("path,text\ra.wav,one\rb.wav,two\rc.wav,three\r", ["one", "two", "three"], 0),
    ],
)
def test_no_row_of_a_table_is_swallowed(text: str, texts: list[str], num_notes: int) -> None:
    found, notes = rows(text)
    assert [row["text"] for row in found] == texts and notes == num_notes


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1), min_size=1, max_size=6))
def test_what_a_writer_of_csv_writes_is_what_is_read(texts: list[str]) -> None:
    import csv

    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerows([["path", "text"], *([f"{n}.mp5", text] for n, text in enumerate(texts))])
    assert [row["text"] for row in rows(sink.getvalue())[0]] == texts


def test_a_tab_table_keeps_quotes_but_those_that_a_writer_has_doubled() -> None:
    found, _ = rows('path\ttext\na\t"Hello"\nb\t"say ""hi"" now"\nc\t"open\n', is_tab=True)
    assert [row["text"] for row in found] == ['"Hello"', 'say "hi" now', '"open']


def test_ljspeech_with_commas_in_its_first_line_keeps_its_texts(tmp_path: Path) -> None:
    put(tmp_path / "metadata.csv", "LJ001|Printing, in the only sense|Printing, in the only sense\nLJ002|two|two\n")
    put(tmp_path / "wavs" / "LJ001.wav", tone())
    texts = {entry.source.rsplit("/", 1)[-1]: entry.reference for entry in listed(tmp_path / "metadata.csv").entries}
    assert texts == {"LJ001.wav": "Printing, in the only sense", "LJ002.wav": "two"}


def test_kaldi_texts_keep_separators_that_end_no_line(tmp_path: Path) -> None:
    put(tmp_path / "wav.scp", "u1 a.wav\nu2 b.wav\n")
    put(tmp_path / "text", "u1 one\u2028more\u0085still\nu2 two\n")
    assert [entry.reference for entry in listed(tmp_path / "wav.scp").entries] == ["one\u2028more\u0085still", "two"]


def test_a_json_line_nested_too_deep_is_a_bad_row(tmp_path: Path) -> None:
    place = put(tmp_path / "m.jsonl", '{"path": "a.wav"}\n' + '{"x":' + "[" * 100_000 + "\n" + '{"path": "b.wav"}\n')
    kinds = [isinstance(row, BadRow) for _, row in read_rows(Place(str(place)))]
    assert kinds == [False, True, False]


def test_a_manifest_in_another_encoding_is_read_and_one_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "c.wav", tone())
    for encoding in ("cp1252", "utf-16"):
        listing = listed(put(tmp_path / "m.csv", f"path,text\r\nc.wav,{TEXT}\r\n".encode(encoding)))
        assert [entry.reference for entry in listing.entries] == [TEXT]
        assert len(listing.notes) == 1 and encoding in listing.notes[0]
    with pytest.raises(InputError, match="UTF-8"):
        listed(put(tmp_path / "m.csv", "path,text\nc.wav,Привет всем\n".encode("cp1251")))


def test_one_file_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in" / "a.wav", tone())
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "b.wav").symlink_to(tmp_path / "in" / "a.wav")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    listing = listed("../in", "../in/", "./../in/a.wav", tmp_path / "in", tmp_path / "link", tmp_path / "b.wav")
    assert [entry.source for entry in listing.entries] == [str(tmp_path / "in" / "a.wav")]
    assert listing.num_duplicates == 5
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "jump").symlink_to(tmp_path / "deep" / "er")
    assert absolute(f"{tmp_path}/jump/../x.wav") == os.path.realpath(tmp_path / "deep" / "x.wav")


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://u:p@h/a.wav?X-Amz-Signature=1&X-Amz-Date=2", "https://h/a.wav"),
        ("https://h/a.wav?sv=1&se=2&sp=r&sr=b&sig=3", "https://h/a.wav"),
        ("https://h/get?id=3&token=secret", "https://h/get?id=3"),
        ("https://h/a.wav?AWSAccessKeyId=1&Signature=2&Expires=3&versionId=9", "https://h/a.wav?versionId=9"),
        ("https://h/get?st=summer", "https://h/get?st=summer"),
        ("s3a://b/a.wav", "s3://b/a.wav"),
        ("gcs://b/a?b.wav", "gs://b/a?b.wav"),
    ],
)
def test_what_says_who_may_read_is_no_part_of_a_name(url: str, source: str) -> None:
    assert source_of(url) == source


def test_a_metadata_file_that_nobody_named_names_nothing_outside_its_folder(tmp_path: Path) -> None:
    put(tmp_path / "home" / "secret.wav", tone())
    put(tmp_path / "ds" / "a.wav", tone())
    lines = ["file_name,text", "a.wav,hi", f"{tmp_path}/home/secret.wav,stolen", "http://127.0.0.1:9/x.wav,asked"]
    put(tmp_path / "ds" / "metadata.csv", "\n".join(lines))
    found = [(entry.reference, entry.reason) for entry in listed(tmp_path / "ds").entries]
    assert sorted(found, key=str) == sorted(
        [("hi", None), (None, "path_outside_root"), (None, "path_outside_root")], key=str
    )


def test_texts_that_a_corpus_keeps_apart_reach_their_recordings(tmp_path: Path) -> None:
    put(tmp_path / "libri" / "1-2-0.flac", tone())
    put(tmp_path / "libri" / "1-2.trans.txt", "1-2-0 HELLO WORLD\n")
    put(
        tmp_path / "nemo" / "manifest.json", json.dumps({"audio_filepath": "x.wav", "text": "hi", "shard_id": 1}) + "\n"
    )
    put(tmp_path / "shar" / "cuts.000000.jsonl", json.dumps({"id": "c", "supervisions": [{"text": "yes"}]}) + "\n")
    for name, member in (
        ("nemo/audio_1.tar", "x.wav"),
        ("shar/recording.000000.tar", "c.wav"),
        ("t/l.tar", "d/1-2-0.wav"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with tarfile.open(tmp_path / name, "w") as tar:
            files = {member: tone()} | ({"d/1-2.trans.txt": b"1-2-0 IN A TAR\n"} if name.startswith("t/") else {})
            for each, content in files.items():
                told = tarfile.TarInfo(each)
                told.size = len(content)
                tar.addfile(told, io.BytesIO(content))
    listing = listed(tmp_path)
    assert {entry.reference for entry in listing.entries} == {"HELLO WORLD", "hi", "yes", "IN A TAR"}
    assert not listing.ignored


@pytest.mark.parametrize(
    "mark", ["_delta_log/00000000000000000000.json", "metadata/v1.metadata.json", ".hoodie/hoodie.properties"]
)
def test_a_table_with_a_log_is_refused_by_its_kind(tmp_path: Path, mark: str) -> None:
    put(tmp_path / "t" / mark, "{}")
    put(tmp_path / "t" / "part-0.parquet", b"PAR1")
    for name in ["t", "t/*.parquet"][: 2 if mark.startswith("_delta") else 1]:
        with pytest.raises(InputError, match=r"Delta|Iceberg|Hudi"):
            listed(tmp_path / name)


def archive_of(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in members.items():
            told = tarfile.TarInfo(name)
            told.size = len(content)
            tar.addfile(told, io.BytesIO(content))
    with pa.CompressedOutputStream(str(path), "zstd") as out:
        out.write(sink.getvalue())
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar.zst"])
def test_zip_and_zstandard_archives_are_read_like_a_tar(tmp_path: Path, name: str) -> None:
    members = {
        "x/a.wav": tone(),
        "x/a.txt": TEXT.encode("cp1252"),
        "b.wav": tone() + b"\0" * 300_000,
        ".hidden.wav": b"",
        "c.jpg": b"",
    }
    place = archive_of(tmp_path / name, members)
    entries = list(listed(place).entries)
    assert [entry.member for entry in entries] == ["x/a.wav", "b.wav"]
    reader = ShardReader({})
    for entry in reversed(entries):  # backwards, too
        with reader.open(entry.source, entry.kind, entry.position, entry.size) as handle:
            assert handle.read() == members[entry.member]
            handle.seek(4)
            assert handle.read(8) == members[entry.member][4:12]
    texts = [reader.sidecar(e.source, e.kind, s) for e in entries for s in e.sidecars or ()]
    assert texts == ([TEXT.encode("cp1252")] if name.endswith("zip") else [])
    assert name.endswith("zip") or entries[0].reference == TEXT
    reader.close()


def test_a_broken_zip_and_an_encrypted_member_are_named(tmp_path: Path) -> None:
    place = archive_of(tmp_path / "a.zip", {"a.wav": tone()})
    content = bytearray(place.read_bytes())
    (entry,) = listed(put(tmp_path / "cut.zip", bytes(content[:100]))).entries
    assert entry.reason == "unreadable_shard"
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    (entry,) = listed(put(tmp_path / "locked.zip", bytes(content))).entries
    assert entry.reason == "unreadable" and "encrypted" in (entry.detail or "")


def test_what_a_folder_leaves_out_is_counted_by_kind(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wmv", "c.m2ts", "d.mp2", "e.ac3", "f.wv", "g.jpg", "h.pdf", "i"):
        put(tmp_path / name, b"x")
    listing = listed(tmp_path)
    assert len(listing.entries) == 6
    assert listing.describe_ignored() == "ignored: 1 jpg, 1 pdf, 1 (none)"


def test_a_name_may_hold_two_colons(tmp_path: Path) -> None:
    put(tmp_path / "x::y" / "a::b.wav", tone())
    listing = listed(tmp_path / "x::y", tmp_path / "x::y" / "a::b.wav")
    assert len(listing.entries) == 1
