"""The same person across recordings: links, names, corrections by hand, and forgetting that holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import audiomill
from audiomill.speakers.linking import RecordingSpeaker, Voices, linked
from audiomill.storage.fs import Place
from audiomill.voices.speaker_linking import read_index, updated
from tests.support.command_line import in_process
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import encode
from tests.support.talkers import clips_of, conversation

SHOWS = {"a": "en fr en fr", "b": "fr en fr en", "c": "it en it en"}


def vector(who: int, random: np.random.Generator) -> NDArray[np.float32]:
    middle = np.eye(16, dtype=np.float32)[who]
    return (middle + 0.1 * random.normal(size=16)).astype(np.float32)


def heard(recordings: list[list[int]]) -> list[RecordingSpeaker]:
    random = np.random.default_rng(0)
    return [
        RecordingSpeaker(f"r{number}", f"S{at}", 5.0, vector(who, random))
        for number, people in enumerate(recordings)
        for at, who in enumerate(people, 1)
    ]


PEOPLE = st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=3, unique=True), min_size=1, max_size=8)


@given(PEOPLE, st.integers(0, 8))
def test_what_is_added_later_gives_what_all_at_once_gives(recordings: list[list[int]], first: int) -> None:
    everyone = heard(recordings)
    at = sum(len(people) for people in recordings[:first])
    whole, growing = Voices({}), Voices({})
    expected = linked(whole, everyone, 0.45)
    early = linked(growing, everyone[:at], 0.45)
    kept = Voices(growing.sums, growing.last)  # as it is read again from disk
    assert early + linked(kept, everyone[at:], 0.45) == expected
    people = [who for people in recordings for who in people]
    assert len(set(zip(people, [link.voice for link in expected], strict=True))) == len(set(people))


def test_two_of_one_recording_are_never_one_voice() -> None:
    same = np.ones(16, np.float32)
    links = linked(
        Voices({}),
        [
            RecordingSpeaker("r", "S1", 3.0, same),
            RecordingSpeaker("r", "S2", 3.0, same),
            RecordingSpeaker("q", "S1", 3.0, same),
        ],
        0.45,
    )
    assert links[0].voice != links[1].voice and links[2].voice == links[0].voice


@pytest.fixture(scope="module")
def shows(tmp_path_factory: pytest.TempPathFactory, wav2vec2_folder: Path) -> Path:
    """An output of three conversations with vectors."""
    root = tmp_path_factory.mktemp("shows")
    (root / "in").mkdir()
    for name, order in SHOWS.items():
        (root / "in" / f"{name}.wav").write_bytes(encode(conversation(order, pause_s=0.4)[0]))
    run(root / "in", root / "out", model=wav2vec2_folder, **OPTIONS)
    return root


OPTIONS: dict[str, Any] = {"speakers": "auto", "save_speaker_embeddings": True, "part_seconds": 12, "segment": "vad"}


@pytest.fixture
def output(shows: Path, tmp_path: Path) -> Path:
    shutil.copytree(shows / "out", tmp_path / "out")
    return tmp_path / "out"


def listed(output: Path, *more: str) -> list[dict[str, Any]]:
    found = in_process(output.parent, "link-speakers", str(output), "--json", *more)
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def voice_of(output: Path, who: str) -> str:
    """The voice of a person, by a recording of it alone."""
    path = output.parent / f"{who}.wav"
    path.write_bytes(encode(clips_of(who)[0]))
    named = [row for row in listed(output, "--name", f"{who}={path}") if row["name"] == who]
    return str(named[0]["voice"])


def test_a_person_is_one_voice_in_all_recordings_and_gets_a_name(output: Path) -> None:
    found = listed(output)
    assert [row["voice"] for row in found] and len(found) == 3
    assert sorted(row["num_recordings"] for row in found) == [1, 2, 3]
    voices = {who: voice_of(output, who) for who in ("en", "fr", "it")}
    assert len(set(voices.values())) == 3
    assert {row["name"]: row["num_recordings"] for row in listed(output)} == {"en": 3, "fr": 2, "it": 1}
    (output.parent / "zh.wav").write_bytes(encode(clips_of("zh")[0]))
    told = in_process(output.parent, "link-speakers", str(output), "--name", "zh=zh.wav")
    assert told.returncode == 2 and "nobody" in told.stderr and len(told.stderr.splitlines()) == 1
    cues = in_process(output.parent, "export", str(output), "--format", "rttm", "--to", str(output.parent / "rttm"))
    assert cues.returncode == 0
    value_of = {
        line.split()[7] for path in (output.parent / "rttm").iterdir() for line in path.read_text().splitlines()
    }
    assert value_of == {"en", "fr", "it"}


def test_ids_stay_when_recordings_are_added(output: Path, shows: Path, wav2vec2_folder: Path) -> None:
    before = {(link.recording_id, link.speaker): link.voice for link in updated(Place(str(output))).links}
    (output.parent / "d.wav").write_bytes(encode(conversation("ja fr ja fr", pause_s=0.4)[0]))
    run([shows / "in", output.parent / "d.wav"], output, model=wav2vec2_folder, **OPTIONS)
    after = {(link.recording_id, link.speaker): link.voice for link in updated(Place(str(output))).links}
    assert before.items() <= after.items() and len(after) == len(before) + 2
    fr = [row for row in listed(output) if row["num_recordings"] == 3]
    assert len(fr) == 2 and len(listed(output)) == 4


def test_a_reader_joins_voices(shows: Path, tmp_path: Path) -> None:
    run(shows / "in", tmp_path / "vectors", "embed", layers="1", pool="mean", **OPTIONS)
    updated(Place(str(tmp_path / "vectors")))
    samples = list(audiomill.open_output(str(tmp_path / "vectors"), columns=["speaker", "voice", "voice_name"]))
    known = {link.voice for link in read_index(Place(str(tmp_path / "vectors"))).links}
    assert {told["voice"] for _, _, told in samples} == known and {told["voice_name"] for _, _, told in samples} == {
        None
    }


def test_voices_are_merged_and_split_and_stay_so(output: Path) -> None:
    first, second, *_ = (row["voice"] for row in listed(output))
    merged = listed(output, "--merge", f"{first},{second}")
    assert len(merged) == 2 and second not in {row["voice"] for row in merged}
    again = listed(output, "--split", first)
    assert len(again) == 3 and second not in {row["voice"] for row in again}, "an id is never given twice"
    assert listed(output) == again
    for wrong in (["--merge", first], ["--split", "v999999"], ["--forget", "v999999"], ["--words"], ["--name", "x"]):
        told = in_process(output.parent, "link-speakers", str(output), *wrong)
        assert told.returncode == 2 and len(told.stderr.splitlines()) == 1, wrong


def test_what_is_forgotten_stays_forgotten(output: Path, shows: Path, wav2vec2_folder: Path) -> None:
    gone, kept = voice_of(output, "fr"), voice_of(output, "en")
    index = read_index(Place(str(output)))
    pairs = {(link.recording_id, link.speaker) for link in index.links if link.voice == gone}
    words_before = {row["id"]: row["text"] for row in rows(output, "segments")}
    listed(output, "--forget", gone)
    for again in (False, True):
        if again:  # everything is made anew, and more
            (output.parent / "d.wav").write_bytes(encode(conversation("fr it fr it", pause_s=0.4)[0]))
            run([shows / "in", output.parent / "d.wav"], output, model=wav2vec2_folder, overwrite=True, **OPTIONS)
        for table in ("speakers", "turns"):
            for row in rows(output, table):
                if (row["recording_id"], row["speaker"]) in pairs:
                    assert row["vector"] is None
        assert gone not in {row["voice"] for row in listed(output)}
        assert {row["name"] for row in listed(output)} >= {"en"} and kept in {row["voice"] for row in listed(output)}
    assert {row["id"]: row["text"] for row in rows(output, "segments")}.items() >= words_before.items(), "words stay"
    assert b'"S' in (output / "voices" / "forgotten.json").read_bytes()


@pytest.mark.nightly
def test_names_and_forgetting_do_not_pass_to_others_under_other_settings(
    output: Path, shows: Path, wav2vec2_folder: Path
) -> None:
    gone = voice_of(output, "fr")
    recordings = {link.recording_id for link in read_index(Place(str(output))).links if link.voice == gone}
    listed(output, "--forget", gone, "--words")
    run(shows / "in", output, model=wav2vec2_folder, overwrite=True, **{**OPTIONS, "num_speakers": 3})
    for row in rows(output, "speakers"):  # nobody knows who is who now: all of the recording are forgotten
        assert (row["vector"] is None) == (row["recording_id"] in recordings)
    assert all(
        not row["text"] for row in rows(output, "segments") if row["recording_id"] in recordings and row["speaker"]
    )
    assert {row["name"] for row in listed(output)} == {None} and gone not in {row["voice"] for row in listed(output)}
    run(shows / "in", output, model=wav2vec2_folder, overwrite=True, **{**OPTIONS, "save_speaker_embeddings": False})
    assert not (output / "voices" / "voices.parquet").exists(), (
        "without --save-speaker-embeddings nothing of a voice is kept"
    )


def test_vectors_of_segments_are_forgotten_too(shows: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(shows / "in", output, "embed", **{**OPTIONS, "model": "campplus"})
    gone = voice_of(output, "fr")
    index = read_index(Place(str(output)))
    pairs = {(link.recording_id, link.speaker) for link in index.links if link.voice == gone}
    listed(output, "--forget", gone)
    mine = {row["id"] for row in rows(output, "segments") if (row["recording_id"], row["speaker"]) in pairs}
    assert mine and not mine & {row["segment_id"] for row in rows(output, "embeddings")}


def test_words_go_only_where_that_is_asked(output: Path, shows: Path, wav2vec2_folder: Path) -> None:
    gone = voice_of(output, "fr")
    pairs = {(link.recording_id, link.speaker) for link in read_index(Place(str(output))).links if link.voice == gone}
    before = rows(output, "segments")
    listed(output, "--forget", gone, "--words")
    after = {row["id"]: row for row in rows(output, "segments")}
    assert (output / "_SUCCESS").exists() and not (output / "report.html").exists()
    for row in before:
        said = [word for word in row["words"] if (row["recording_id"], word["speaker"]) not in pairs]
        assert after[row["id"]]["words"] == said
        assert (after[row["id"]]["text"] == row["text"]) == (len(said) == len(row["words"]))
    texts = {row["id"]: row["text"] for row in rows(output, "recordings")}
    for name in texts:
        own = [row["text"] for row in after.values() if row["recording_id"] == name and row["text"]]
        assert texts[name].split() == " ".join(own).split()
    again = run(shows / "in", output, model=wav2vec2_folder, **OPTIONS)
    assert again["num_parts_this_run"] == 0


def test_an_output_without_vectors_is_told(shows: Path, tmp_path: Path) -> None:
    run(shows / "in" / "a.wav", tmp_path / "out", speakers="auto")
    run(shows / "in" / "a.wav", tmp_path / "plain")
    for name, told in (("out", "--save-speaker-embeddings"), ("plain", "--speakers auto")):
        found = in_process(tmp_path, "link-speakers", name)
        assert found.returncode != 0 and told in found.stderr and len(found.stderr.splitlines()) == 1
