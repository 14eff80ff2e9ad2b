"""What comes out opens in the tools that people use, joins up, and is scored right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiomill import schema
from audiomill.sources.references import read_references
from audiomill.storage.fs import Place
from audiomill.text.subtitles import Cue, cues_of_words, srt, vtt
from audiomill.text.wer import score_pair
from tests.support import corpus
from tests.support.jobs_by_hand import rows, run


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, voices: Any, whisper: Path) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    inputs = corpus.write_sources(folder / "in", voices)
    run([*inputs["shard.tar"], *inputs["folder"]], folder / "out", model=str(whisper))
    return folder / "out"


def test_pandas_opens_every_table(output: Path) -> None:
    import pandas

    for name, expected in schema.TABLES.items():
        assert list(pandas.read_parquet(output / name).columns) == expected.names


def test_duckdb_joins_the_tables(output: Path) -> None:
    import duckdb

    query = f"""SELECT r.source, r.member, s.text FROM '{output}/segments/*.parquet' s
                JOIN '{output}/recordings/*.parquet' r ON s.recording_id = r.id WHERE s.text ILIKE '%fox%'"""
    assert len(duckdb.sql(query).fetchall()) == 2


def test_polars_opens_every_table(output: Path) -> None:
    import polars

    for name, expected in schema.TABLES.items():
        table = polars.scan_parquet(output / name / "*.parquet")
        assert table.collect_schema().names() == expected.names
        assert table.select(polars.len()).collect().item() == len(rows(output, name))


def test_datasets_reads_a_table_with_its_nested_columns(output: Path, tmp_path: Path) -> None:
    import datasets

    found = datasets.load_dataset(
        "parquet", data_files=f"{output}/segments/*.parquet", split="train", cache_dir=str(tmp_path)
    )
    expected = rows(output, "segments")
    assert found["id"][:] == [row["id"] for row in expected]
    assert found[0]["words"] == expected[0]["words"] and expected[0]["words"]


@pytest.mark.parametrize("suffix", ["srt", "vtt"])
def test_ffmpeg_reads_the_subtitles(tmp_path: Path, suffix: str) -> None:
    import av

    cues = [Cue(0.5, 1.25, "one <b> & 2"), Cue(3661.0, 3662.5, "漢字 second line"), Cue(36_610.0, 36_611.0, "--> no")]
    path = tmp_path / f"a.{suffix}"
    path.write_text((srt if suffix == "srt" else vtt)(cues), encoding="utf-8")
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        found = [packet for packet in container.demux(stream) if packet.size]
    assert [float(packet.pts * packet.time_base) for packet in found] == [cue.start_s for cue in cues]
    assert [float(packet.duration * packet.time_base) for packet in found] == [
        pytest.approx(cue.stop_s - cue.start_s) for cue in cues
    ]
    said = [bytes(packet).decode() for packet in found]
    assert said[1] == "漢字 second line" and said[2].endswith(" no")


def test_pyarrow_reads_the_folder_and_finds_the_units(output: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(output / "recordings")
    assert table.schema.field("speech_s").metadata[b"unit"] == b"s"
    assert set(pq.read_table(output / "plan.parquet").column("id").to_pylist()) == set(table.column("id").to_pylist())


def test_sidecar_texts_become_references(output: Path) -> None:
    for row in rows(output, "recordings"):
        assert row["reference"] in ("Hello world.", "The quick brown fox jumps over the lazy dog.")
        assert score_pair(row["reference"], row["text"], "en")[0].rate == 0


@pytest.mark.parametrize("column", ["id", "member", "path", "name"])
def test_references_join_by_name_and_never_by_position(output: Path, tmp_path: Path, column: str) -> None:
    recordings = [r for r in rows(output, "recordings") if bool(r["member"]) == (column == "member")]
    keys = {
        "id": lambda r: r["id"],
        "member": lambda r: r["member"],
        "path": lambda r: r["source"],
        "name": lambda r: Path(r["source"]).stem,
    }
    header = {"name": "file_name"}.get(column, column)
    lines = [f"{keys[column](r)},text {r['id']}" for r in reversed(recordings)]
    (tmp_path / "refs.csv").write_text("\n".join([f"{header},text", *lines]))
    references = read_references(Place(str(tmp_path / "refs.csv")))
    for recording in recordings:
        number = references.find(recording)
        assert number is not None and references.text(number) == f"text {recording['id']}"


def test_ambiguous_names_are_not_guessed(output: Path, tmp_path: Path) -> None:
    (tmp_path / "refs.csv").write_text("file_name,text\na/0.flac,one\nb/0.flac,two\n")
    references = read_references(Place(str(tmp_path / "refs.csv")))
    assert all(references.find(r) is None for r in rows(output, "recordings") if not r["member"])


def test_counts_of_a_known_alignment() -> None:
    words, characters = score_pair("a b c d", "a x c e d", "fr")
    assert (words.substitutions, words.insertions, words.deletions, words.num_reference) == (1, 1, 0, 4)
    assert words.rate == 0.5 and characters.num_reference == 4


def test_english_is_normalised_as_whisper_does() -> None:
    assert score_pair("Mr. O'Neil can't pay twenty-two dollars", "mister o'neil can not pay $22", "en")[0].rate == 0
    assert score_pair("colour", "color", None)[0].rate == 1


@given(
    st.lists(st.sampled_from(["ab", "c", "defg"]), max_size=8),
    st.lists(st.sampled_from(["ab", "c", "defg"]), max_size=8),
)
def test_edit_counts_add_up(reference: list[str], hypothesis: list[str]) -> None:
    words, _ = score_pair(" ".join(reference), " ".join(hypothesis), None)
    assert words.num_reference == len(reference)
    assert len(reference) - words.deletions + words.insertions == len(hypothesis)
    assert (words.rate == 0) == (reference == hypothesis)


def test_subtitle_formats_are_exact() -> None:
    cues = [Cue(0.0, 1.5, "a <b> & c"), Cue(3661.0, 3662.0004, "d")]
    assert srt(cues) == "1\n00:00:00,000 --> 00:00:01,500\na <b> & c\n\n2\n01:01:01,000 --> 01:01:02,000\nd\n"
    assert vtt(cues).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt;b&gt; &amp; c\n")


def test_words_become_cues_that_fit_and_keep_every_word() -> None:
    words = [Cue(n * 0.4, n * 0.4 + 0.3, f"word{n}" + ("." if n % 13 == 12 else "")) for n in range(60)]
    cues = cues_of_words(words, " ".join(word.text for word in words))
    assert " ".join(c.text for c in cues).split() == [w.text for w in words]
    assert all(len(c.text) <= 84 and c.stop_s - c.start_s <= 7 for c in cues) and len(cues) > 4
