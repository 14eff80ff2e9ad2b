"""What people really have: inputs out of public bug reports, each with the right value."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from audiomill.audio.decode import planned_duration_s
from audiomill.audio.headers.wav import is_placeholder
from audiomill.audio.mixing import mixing_by, mixing_of
from audiomill.config.fields import build
from audiomill.config.jobs import TranscribeConfig
from audiomill.config.stages import DecodeConfig, PlanConfig
from audiomill.errors import InputError
from audiomill.runs.job import run_job
from audiomill.sources.listing import list_inputs
from audiomill.stages import plan as stages
from audiomill.storage.fs import Place
from audiomill.storage.urls import on_disk, readable
from tests.audio.test_audio import FIXED, cut, whole
from tests.support.jobs_by_hand import check_accounts, rows, run
from tests.support.synth import RATE, cutting, encode, encode_with_ffmpeg, noise, tar_bytes, tone


def listed(place: Any, root: str | None = None) -> list[Any]:
    return list(stages.listed((str(place),), PlanConfig(audio_root=root), DecodeConfig(), "/nowhere").entries)


# -------------------------------------------------------------------------------------- all the audio, at its time


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None), ("WAV", None), ("MP3", None), ("RF64", None), ("AIFF", "PCM_16"),
        ("AIFF", "FLOAT"), ("CAF", None), ("AU", None),
    ],
)  # fmt: skip
def test_streams_joined_in_one_file_are_all_read(kind: str, subtype: str | None) -> None:
    """`cat a.ogg b.ogg`: Icecast recordings (lewton#18, OGVKit#165)."""
    joined = b"".join(encode(tone(s, f), RATE, kind, subtype) for f, s in ((300, 3.0), (500, 4.0), (700, 1.0)))
    _, ending = cut(joined)
    assert abs(ending.num_samples - 8 * RATE) < 0.1 * RATE and ending.error is None and ending.failed_samples == 0
    pcm = whole(joined).astype(float)  # getID3#120: players showed the first one's length alone
    for start, frequency in ((1, 300), (5, 500)):
        second = np.abs(np.fft.rfft(pcm[start * RATE : (start + 1) * RATE]))
        assert abs(int(second.argmax()) - frequency) <= 2


def test_a_joined_stream_of_another_rate_and_layout_is_fitted_to_the_first() -> None:
    other = np.stack([tone(2.0, 500, 44_100)] * 2, 1)
    _, ending = cut(encode(tone(2.0, 300), RATE, "FLAC") + encode(other, 44_100, "FLAC"))
    assert abs(ending.num_samples - 4 * RATE) < 0.05 * RATE and ending.num_channels == 1


@pytest.mark.parametrize("size", [0, 300, 100_000])
def test_the_tag_of_an_mp3_is_no_second_stream(size: int) -> None:
    """ID3 before the audio, as cover pictures make it long."""
    tag = b"ID3\x04\x00\x00" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    for content in (tag + encode(tone(2.0), RATE, "MP3"), encode(tone(2.0), RATE, "MP3")):
        _, ending = cut(content)
        assert abs(ending.num_samples - 2 * RATE) < 0.1 * RATE


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"), ("WAV", "IMA_ADPCM"), ("RF64", "PCM_24"), ("W64", "PCM_16"), ("AIFF", "PCM_24"), ("AIFF", "ULAW"),
        ("AU", "PCM_16"), ("NIST", "PCM_16"), ("CAF", "PCM_16"), ("VOC", "PCM_16"), ("VOC", "PCM_U8"),
    ],
)  # fmt: skip
def test_sound_that_a_header_states_and_that_is_cut_off_is_missed(kind: str, subtype: str) -> None:
    """libsndfile tells the shorter length of such files as if it were whole."""
    content = encode(tone(3.0), RATE, kind, subtype)
    _, ending = cut(content)
    assert ending.error is None and abs(ending.num_samples - 3 * RATE) < 1_000, "ADPCM has blocks"
    _, ending = cut(content[: len(content) // 2])
    assert abs(ending.num_samples - 3 * RATE) < 1_000 and ending.failed_samples > RATE
    assert ending.error is not None and ending.error.startswith(("truncated: expected 3.0", "truncated: expected 2.9"))


def test_a_flac_that_breaks_off_in_its_second_block_keeps_what_came_before() -> None:
    content = encode(tone(2.143, 440, 48_000), 48_000, "FLAC")
    _, ending = cut(content[: 2 * len(content) // 3])
    assert ending.num_samples == 34_288 and RATE // 2 < ending.failed_samples < RATE


@pytest.mark.parametrize(("kind", "most"), [("FLAC", 0.6), ("MP3", 1.2)])
def test_sound_behind_a_damaged_place_is_kept_at_its_time(kind: str, most: float) -> None:
    """libsndfile gives up at the first damaged frame: half of a recording was lost for 3 kB."""
    waveform = np.concatenate([tone(12.0, 300), tone(8.0, 700)]) + noise(20 * RATE) / 300_000
    content = bytearray(encode(waveform, RATE, kind))
    content[len(content) // 2 : len(content) // 2 + 3_000] = b"\xa5" * 3_000
    cuts, ending = cut(bytes(content), FIXED)
    pcm = np.concatenate([each.pcm_T for each in cuts])
    assert abs(ending.num_samples - 20 * RATE) < 0.1 * RATE and 0 < ending.failed_samples < most * RATE
    assert ending.error is not None and "nothing between" in ending.error
    loudest = [
        int(np.abs(np.fft.rfft(pcm[at * RATE : (at + 1) * RATE].astype(float))).argmax()) for at in (2, 11, 12, 18)
    ]
    assert loudest == [300, 300, 700, 700], "what follows keeps its time"


@pytest.mark.parametrize(
    ("container", "codec", "least", "most"),
    [("mp4", "aac", 0.2, 0.6), ("adts", "aac", 0.05, 0.6), ("mpegts", "aac", 0.1, 0.6), ("matroska", "mp3", 0.2, 5.5), ("webm", "libopus", 0.2, 5.5)],
)  # fmt: skip
def test_packets_that_cannot_be_decoded_are_missing_sound(
    container: str, codec: str, least: float, most: float
) -> None:
    """They were silence that nobody was told of; Matroska goes on at its next cluster, up to 5 s later."""
    rate = 48_000 if codec == "libopus" else RATE
    sound = 0.1 * np.random.default_rng(0).standard_normal(12 * rate)
    waveform = np.concatenate([sound, tone(8.0, 700, rate)]).astype(np.float32)
    content = bytearray(encode_with_ffmpeg(waveform, rate, container, codec))
    _, ending = cut(bytes(content))
    assert ending.error is None and ending.failed_samples == 0
    content[len(content) // 3 : len(content) // 3 + 3_000] = b"\xa5" * 3_000
    cuts, ending = cut(bytes(content), FIXED)
    assert least * RATE < ending.failed_samples < most * RATE and ending.error is not None
    assert ending.error.startswith("damaged: ")
    assert "packet at" in ending.error or "nothing between" in ending.error
    pcm = np.concatenate([each.pcm_T for each in cuts])
    assert abs(ending.num_samples - 20 * RATE) < 0.5 * RATE
    assert abs(int(np.abs(np.fft.rfft(pcm[15 * RATE : 16 * RATE].astype(float))).argmax()) - 700) < 2


def test_a_tag_behind_the_sound_is_no_damage() -> None:
    """ID3v1 at the end of a FLAC: "lost sync", with every sample there."""
    cuts, ending = cut(encode(noise(RATE), RATE, "FLAC") + b"TAG" + bytes(125), FIXED)
    assert ending.error is None and np.array_equal(np.concatenate([each.pcm_T for each in cuts]), noise(RATE))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_the_shortest_mp3s_are_joined_too(rate: int) -> None:
    """The second begins where the first one's header might still be."""
    _, ending = cut(encode(tone(0.5, rate=rate), rate, "MP3") * 2)
    assert abs(ending.num_samples - RATE) < 2400 * RATE / rate and ending.failed_samples == 0


def test_a_stream_that_changes_its_rate_is_read_to_the_end() -> None:
    parts = (encode_with_ffmpeg(tone(3.0, f, rate), rate, "adts", "aac") for f, rate in ((300, 44_100), (500, 22_050)))
    _, ending = cut(b"".join(parts))
    assert abs(ending.num_samples - 6 * RATE) < 0.3 * RATE
    joined = encode(tone(3.0, 300, 44_100), 44_100, "MP3") + encode(tone(4.0, 500, 22_050), 22_050, "MP3")
    _, ending = cut(joined)
    assert abs(ending.num_samples - 7 * RATE) < 0.2 * RATE and ending.failed_samples == 0


def test_a_transport_stream_s_clock_begins_with_the_recording() -> None:
    """TS captures begin at 1.4 s of a clock of their own; subtitles were early by it (fliks PR #576)."""
    cuts, ending = cut(encode_with_ffmpeg(tone(3.0), RATE, "mpegts", "aac"), FIXED)
    assert abs(ending.num_samples - 3 * RATE) < 0.15 * RATE and np.abs(cuts[0].pcm_T[: RATE // 4]).max() > 10_000


def test_a_span_in_a_later_stream_is_found() -> None:
    joined = encode(tone(2.0, 300), RATE, "FLAC") + encode(tone(2.0, 500), RATE, "FLAC")
    cuts, ending = cut(joined, FIXED, start_s=2.5, duration_s=1.0)
    assert ending.num_samples == RATE
    assert int(np.abs(np.fft.rfft(cuts[0].pcm_T.astype(float))).argmax()) == 500


def container(tracks: list[NDArray[np.float32]], delay_s: float = 0.0, gap_s: float = 0.0, **metadata: str) -> bytes:
    """Matroska with PCM tracks that start late, with a gap after their first second."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="matroska") as out:
        streams = [out.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in tracks]
        for stream, language in zip(streams, metadata.values(), strict=False):
            stream.metadata["language"] = language
        packets = []
        for stream, waveform in zip(streams, tracks, strict=True):
            for at in range(0, len(waveform), 1_000):
                chunk = np.rint(waveform[None, at : at + 1_000] * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout="mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = int(delay_s * RATE) + at + (int(gap_s * RATE) if at >= RATE else 0)
                packets += [(frame.pts, packet) for packet in stream.encode(frame)]
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            out.mux(packet)
    return sink.getvalue()


def test_a_track_that_starts_late_keeps_its_time() -> None:
    """subgen PR #305: every time was early by six seconds, and the file was called truncated."""
    cuts, ending = cut(container([tone(3.0)], delay_s=6.0), FIXED)
    pcm = np.concatenate([each.pcm_T for each in cuts])
    assert abs(ending.num_samples - 9 * RATE) < 200 and ending.failed_samples == 0 and ending.error is None
    assert np.abs(pcm[: 6 * RATE - 100]).max() == 0 < np.abs(pcm[6 * RATE + 100 : 7 * RATE]).max()
    cuts, ending = cut(container([tone(3.0)], delay_s=6.0), FIXED, start_s=7.0, duration_s=1.0)
    assert ending.num_samples == RATE and np.abs(cuts[0].pcm_T).max() > 10_000


def test_time_without_packets_is_silence() -> None:
    cuts, ending = cut(container([tone(3.0)], gap_s=2.0), FIXED)
    pcm = np.concatenate([each.pcm_T for each in cuts])
    assert abs(ending.num_samples - 5 * RATE) < 200 and ending.failed_samples == 0
    assert np.abs(pcm[RATE + 100 : 3 * RATE - 100]).max() == 0 < np.abs(pcm[4 * RATE :]).max()


@pytest.mark.parametrize(("track", "frequency"), [("default", 300), ("first", 300), ("2", 500), ("fra", 500)])
def test_a_track_is_chosen_and_the_others_are_told(track: str, frequency: int) -> None:
    content = container([tone(2.0, 300), tone(2.0, 500)], a="eng", b="fra")
    cuts, ending = cut(content, FIXED, track=track)
    spectrum = np.abs(np.fft.rfft(cuts[0].pcm_T[:RATE].astype(float)))
    assert int(spectrum.argmax()) == frequency
    assert ending.error is not None and "of 2 audio tracks only" in ending.error


def test_all_tracks_are_recordings_and_the_default_keeps_the_file_s_id(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "two.mkv").write_bytes(container([tone(1.0, 300), tone(1.0, 500)], a="eng", b="fra"))
    (tmp_path / "in" / "one.wav").write_bytes(encode(tone(1.0)))
    for track in ("all", "default"):
        run(tmp_path / "in", tmp_path / track, segment="none", track=track)
        check_accounts(tmp_path / track)
    every, default = (rows(tmp_path / track, "recordings") for track in ("all", "default"))
    found = [(Path(row["source"]).name, row["track"]) for row in every]
    assert found == [("one.wav", None), ("two.mkv", 1), ("two.mkv", 2)]
    assert [row["id"] for row in default] == [row["id"] for row in every[:2]] and len({row["id"] for row in every}) == 3
    assert [row["error"] for row in every] == [None] * 3 and default[1]["error"] is not None
    assert every[1]["text"] == default[1]["text"] != every[2]["text"]


def test_texts_beside_a_file_or_a_pattern_are_those_of_the_folder(tmp_path: Path) -> None:
    for name, text in (("a", "hello"), ("b", "there")):
        (tmp_path / f"{name}.wav").write_bytes(encode(tone(1.0)))
        (tmp_path / f"{name}.txt").write_text(text)
    for number, source in enumerate((tmp_path / "*.wav", tmp_path / "a.wav")):
        run(source, tmp_path.parent / f"{tmp_path.name}-{number}", segment="none")
        found = rows(tmp_path.parent / f"{tmp_path.name}-{number}", "recordings")
        assert [row["reference"] for row in found] == (["hello"] if number == 1 else ["hello", "there"]), source


def test_a_track_that_is_not_there_is_a_named_rejection(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(container([tone(1.0)]))
    run(tmp_path / "a.mkv", tmp_path / "out", track="3")
    (row,) = rows(tmp_path / "out", "rejections")
    assert row["reason"] == "no_audio_stream" and "expected audio track 3" in row["detail"]


# ---------------------------------------------------------------------------------------------- channels that cancel


def test_channels_that_cancel_are_not_silence() -> None:
    """whisperX PR #750: a stereo file whose right channel is the left inverted was empty."""
    left = tone(2.0)
    cuts, ending = cut(encode(np.stack([left, -left], 1)), FIXED)
    assert np.abs(cuts[0].pcm_T).max() > 16_000 and ending.notes is not None and "cancel" in ending.notes


@given(st.floats(-1, 1), st.floats(0.01, 1.0))
def test_a_mix_never_keeps_less_than_a_tenth_of_the_energy(correlation: float, level: float) -> None:
    gram = np.array([[1.0, correlation * level], [correlation * level, level**2]])
    mixing = mixing_by(gram)
    weights = np.full(2, 0.5) if mixing.weights_C is None else mixing.weights_C.astype(float)
    heard = np.diag(gram)[np.diag(gram) > 1e-4]
    assert weights @ gram @ weights >= 0.0999 * heard.mean() or level < 0.02


def test_a_silent_channel_does_not_halve_the_other() -> None:
    cuts, ending = cut(encode(np.stack([tone(1.0), np.zeros(RATE, np.float32)], 1)), FIXED)
    assert np.abs(cuts[0].pcm_T).max() > 16_000 and ending.notes == "silent channels left out of the mix: 1"
    _, plain = cut(encode(np.stack([tone(1.0), tone(1.0, 300)], 1)), FIXED)
    assert plain.notes is None


def test_a_very_quiet_recording_is_raised_and_a_silent_one_is_not() -> None:
    _, ending = cut(encode(0.005 * tone(6.0)), cutting("vad"))
    assert ending.notes == "very quiet (peak -52 dB): raised by 32 dB"
    mixing = mixing_of(io.BytesIO(encode(0.005 * tone(6.0))), 0.0, 60.0, "default", True, lambda: None)
    assert abs(np.abs(mixing.mixed(0.0025 * np.ones((1, 1), np.float32))).max() - 0.1) < 0.003
    for waveform in (
        0.005 * tone(6.0),  # windows show models what is there
        0.05 * tone(1.0),
        np.zeros(RATE, np.float32),
        np.concatenate([np.zeros(6 * RATE, np.float32), tone(1.0)]),
    ):
        cuts, ending = cut(encode(waveform), FIXED)
        assert ending.notes is None
        assert np.abs(np.concatenate([each.pcm_T for each in cuts]) - np.rint(32768 * waveform)).max() <= 1


def test_what_is_clipped_or_missing_of_a_span_is_told() -> None:
    _, loud = cut(encode(40.0 * tone(1.0), RATE, "WAV", "FLOAT"))
    assert loud.notes == "louder than full scale (peak 20): clipped"
    _, short = cut(encode(tone(3.0)), FIXED, start_s=2.0, duration_s=5.0)
    assert short.num_samples == RATE and short.notes is not None and "5.000 s asked for, 1.000 s there" in short.notes


# -------------------------------------------------------------------------------------------------- headers that lie


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF - 36, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 44])
@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
def test_a_size_that_nobody_knew_is_no_promise(size: int, subtype: str) -> None:
    """SoX and arecord into a pipe (rs1729/RS#39, kaldi#1567)."""
    content = bytearray(encode(tone(2.0), RATE, "WAV", subtype))
    at = bytes(content).find(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    _, ending = cut(bytes(content))
    assert ending.num_samples == 2 * RATE and ending.failed_samples == 0 and ending.error is None
    assert planned_duration_s(io.BytesIO(bytes(content))) == pytest.approx(2.0, abs=0.1), "by its packets"
    assert is_placeholder(size) and not is_placeholder(3 * 10**9)


# ------------------------------------------------------------------------------------------------------------ shards


def tar_with_links(folder: Path, mode: str) -> Path:
    """As GNU tar packs a folder with a hard link, a symbolic one, and ones that lead nowhere."""
    for name, frequency in (("a.wav", 300), ("sub/b.wav", 500)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(tone(1.0, frequency)))
    os.link(folder / "a.wav", folder / "hard.wav")
    os.symlink("b.wav", folder / "sub" / "sym.wav")
    os.symlink("../../etc/passwd", folder / "out.wav")
    place = folder.with_suffix(".tar" if mode == "w" else ".tar.gz")
    with tarfile.open(place, mode) as shard:  # type: ignore[call-overload]
        for name in ("a.wav", "sub/b.wav", "hard.wav", "sub/sym.wav", "out.wav"):
            shard.add(folder / name, name)
    return place


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_in_a_tar_are_recordings_and_lead_nowhere_else(tmp_path: Path, mode: str) -> None:
    """ratarmount#28: files with two names were gone."""
    run(tar_with_links(tmp_path / "src", mode), tmp_path / "out", segment="none")
    texts = {row["member"]: row["text"] for row in rows(tmp_path / "out", "recordings")}
    assert sorted(texts) == ["a.wav", "hard.wav", "sub/b.wav", "sub/sym.wav"]
    assert texts["a.wav"] == texts["hard.wav"] != texts["sub/b.wav"] == texts["sub/sym.wav"]
    (row,) = rows(tmp_path / "out", "rejections")
    assert row["member"] == "out.wav" and "link to a file of this tar" in row["detail"]
    check_accounts(tmp_path / "out")


def test_archives_joined_and_compressed_in_pieces_are_read_to_the_end(tmp_path: Path) -> None:
    one, two = (tar_bytes({f"{name}.wav": encode(tone(0.5))}) for name in "ab")
    (tmp_path / "j.tar").write_bytes(one + two)
    (tmp_path / "p.tar.gz").write_bytes(gzip.compress(one[: len(one) // 2]) + gzip.compress(one[len(one) // 2 :] + two))
    for name in ("j.tar", "p.tar.gz"):
        assert [entry.member for entry in listed(tmp_path / name)] == ["a.wav", "b.wav"]
        run(tmp_path / name, tmp_path / f"out-{name}", segment="none")
        assert len(rows(tmp_path / f"out-{name}", "recordings")) == 2


def test_what_macos_puts_beside_files_is_no_recording(tmp_path: Path) -> None:
    members = dict.fromkeys(("./._a.wav", "__MACOSX/a.wav", ".Trash/a.wav"), b"\0\5\x16\7Mac OS X")
    (tmp_path / "s.tar").write_bytes(tar_bytes({**members, "./a.wav": encode(tone(1.0))}))
    assert [entry.member for entry in listed(tmp_path / "s.tar")] == ["./a.wav"]


def test_a_tar_packed_anew_gives_every_member_its_own_text(tmp_path: Path) -> None:
    members = {f"s{number}.wav": encode(noise(RATE, seed=number)) for number in range(4)}
    (tmp_path / "s.tar").write_bytes(tar_bytes(members))
    run(tmp_path / "s.tar", tmp_path / "fresh", segment="none")
    run(tmp_path / "s.tar", tmp_path / "out", segment="none", part_seconds=1)
    (tmp_path / "out" / "ledger" / "part-000001.json").unlink()
    (tmp_path / "out" / "ledger" / "part-000002.json").unlink()
    (tmp_path / "s.tar").write_bytes(tar_bytes(dict(reversed(members.items()))))
    run(tmp_path / "s.tar", tmp_path / "out", segment="none", part_seconds=1)
    texts = [{row["member"]: row["text"] for row in rows(tmp_path / name, "recordings")} for name in ("fresh", "out")]
    assert texts[0] == texts[1]


def struct_column(contents: list[bytes], names: list[str]) -> pa.Array:
    return pa.StructArray.from_arrays([pa.array(contents, pa.binary()), pa.array(names)], ["bytes", "path"])


def test_the_audio_column_is_found_by_name_and_type(tmp_path: Path) -> None:
    """hub-docs PR #1360: an image column before the audio."""
    wav = encode(tone(1.0))
    tables = {
        "image": {"image": struct_column([b"\x89PNG"], ["i.png"]), "audio": struct_column([wav], ["a.wav"])},
        "prompt": {"prompt_audio": struct_column([b"x"], ["p.wav"]), "audio": struct_column([wav], ["a.wav"])},
        "lists": {"speech": pa.array([list(wav)], pa.list_(pa.uint8()))},
        "dictionary": {"audio": pa.array([wav], pa.binary()).dictionary_encode()},
        "large": {"audio": pa.array([wav], pa.large_binary()), "thumbnail": pa.array([b"x"], pa.binary())},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    run([tmp_path / f"{name}.parquet" for name in tables], tmp_path / "out", segment="none")
    assert rows(tmp_path / "out", "rejections") == [] and len(rows(tmp_path / "out", "recordings")) == len(tables)


def test_of_several_audio_columns_the_user_chooses(tmp_path: Path) -> None:
    wav = encode(tone(1.0))
    columns = {"question": struct_column([b"x"], ["q"]), "answer": struct_column([wav], ["a"]), "speaker": ["s7"]}
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    (entry,) = listed(tmp_path / "s.parquet")
    assert entry.reason == "unreadable_shard" and "question, answer; choose with --audio-column" in entry.detail
    run(tmp_path / "s.parquet", tmp_path / "out", segment="none", audio_column="answer")
    (row,) = rows(tmp_path / "out", "recordings")
    assert row["duration_s"] == 1.0 and json.loads(row["metadata"]) == {"speaker": "s7"}
    with pytest.raises(InputError, match="no audio column"):
        run(tmp_path / "s.parquet", tmp_path / "none", audio_column="speaker")


def test_pages_of_parquet_are_opened_in_the_decode_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("pages were read in this process")

    table = pa.table(
        {"audio": struct_column([encode(tone(1.0))] * 3, ["x/a.wav", "b.wav", "a.wav"]), "text": ["1", "2", "3"]}
    )
    pq.write_table(table, tmp_path / "s.parquet", row_group_size=2)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", opened)
    found = [(entry.member, entry.position, entry.size, entry.reference) for entry in listed(tmp_path / "s.parquet")]
    assert found == [("a.wav", 0, 0, "1"), ("b.wav", 0, 1, "2"), ("a.wav#2", 1, 0, "3")]


def test_rows_of_a_damaged_parquet_page_are_rejections(tmp_path: Path) -> None:
    wavs = [encode(noise(RATE, seed=number)) for number in range(4)]
    pq.write_table(
        pa.table({"audio": struct_column(wavs, list("abcd"))}), tmp_path / "s.parquet",
        row_group_size=2, compression="none", use_dictionary=False,
    )  # fmt: skip
    content = bytearray((tmp_path / "s.parquet").read_bytes())
    content[4:40] = b"\xff" * 36  # the header of the first page
    (tmp_path / "s.parquet").write_bytes(content)
    run(tmp_path / "s.parquet", tmp_path / "out", segment="none")
    lost, kept = rows(tmp_path / "out", "rejections"), rows(tmp_path / "out", "recordings")
    assert len(kept) == 2 and len(lost) == 2 and {row["stage"] for row in lost} == {"read"}, lost


# --------------------------------------------------------------------------------------------------------- manifests


def test_metadata_in_a_folder_tells_of_the_files_beside_it(tmp_path: Path) -> None:
    """Hugging Face's audiofolder; what it does not name is read, what is not there is a rejection."""
    for name in ("train/a.wav", "train/b.wav", "c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(tone(1.0)))
    (tmp_path / "train" / "metadata.csv").write_text(
        "file_name,transcription,speaker\na.wav,hello there,s1\nno.wav,gone,s2\n"
    )
    found = {entry.source.rsplit("/", 1)[-1]: entry for entry in listed(tmp_path)}
    assert {name: entry.reference for name, entry in found.items()} == {
        "a.wav": "hello there", "b.wav": None, "c.wav": None, "no.wav": "gone",
    }  # fmt: skip
    assert found["a.wav"].metadata == '{"speaker": "s1"}' and found["a.wav"].size == found["b.wav"].size
    assert found["a.wav"].id == listed(tmp_path / "train" / "a.wav")[0].id, "as without metadata"


def test_metadata_that_means_something_else_hides_no_audio(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(tone(1.0)))
    (tmp_path / "metadata.csv").write_text("name,value\nx,1\n")
    assert [entry.source.rsplit("/", 1)[-1] for entry in listed(tmp_path)] == ["a.wav"]


def test_a_folder_that_is_called_like_a_manifest_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "a.wav").write_bytes(encode(tone(1.0)))
    assert [entry.source.rsplit("/", 1)[-1] for entry in listed(f"{tmp_path}/*")] == ["a.wav"]


def test_a_folder_with_nothing_but_a_manifest_says_so(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").write_bytes(encode(tone(2.0)))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wav.scp").write_text(f"r {tmp_path}/audio/a.wav\n")
    (tmp_path / "data" / "segments").write_text("u1 r 0.5 1.25\nu2 r 1.0 -1\n")
    with pytest.raises(InputError, match=r"data/wav\.scp is a manifest: name it as INPUT"):
        listed(tmp_path / "data")
    for name in ("wav.scp", "segments"):
        spans = [(entry.span_start_s, entry.span_duration_s) for entry in listed(tmp_path / "data" / name)]
        assert spans == [(0.5, 0.75), (1.0, None)]
    (tmp_path / "segments").write_text("u1 r 0.5 1.25\n")
    with pytest.raises(InputError, match=r"expected a wav\.scp beside it"):
        listed(tmp_path / "segments")


@pytest.mark.parametrize(
    ("row", "channel", "note"),
    [
        ({"channel": 1}, 1, None),
        ({"channel_selector": "0"}, 0, None),
        ({"channel": "B"}, 1, None),
        ({"channel": "right"}, 1, None),
        ({"channel": "youtube"}, None, None),
        ({"channel": 7}, None, "the manifest means channel 7 of 2: all are taken"),
        ({"channel": [0, 1]}, None, None),
    ],
)
def test_a_manifest_row_may_mean_one_channel(
    tmp_path: Path, row: dict[str, Any], channel: int | None, note: str
) -> None:
    stereo = np.stack([tone(1.0, 300), tone(1.0, 700)], axis=1)
    (tmp_path / "call.wav").write_bytes(encode(stereo))
    place = tmp_path / "m.jsonl"
    place.write_text(json.dumps({"audio_filepath": "call.wav", "start": 0, "duration": 1.0, **row}))
    (entry,) = listed(place)
    (heard,), ending = cut((tmp_path / "call.wav").read_bytes(), FIXED, duration_s=1.0, channel=entry.channel)
    loudest = int(np.abs(np.fft.rfft(heard.pcm_T)).argmax())
    assert (heard.channel, ending.notes) == (channel, note)
    assert loudest == {0: 300, 1: 700}.get(channel, loudest), "one bin a hertz"


def test_two_rows_of_two_channels_are_two_recordings(tmp_path: Path) -> None:
    (tmp_path / "call.wav").write_bytes(encode(np.stack([noise(RATE), noise(RATE, seed=1)], axis=1)))
    (tmp_path / "m.csv").write_text("path,channel\ncall.wav,0\ncall.wav,1\n")
    run(tmp_path / "m.csv", tmp_path / "out", segment="none")
    assert [row["channel"] for row in rows(tmp_path / "out", "segments")] == [0, 1]
    assert len({row["text"] for row in rows(tmp_path / "out", "segments")}) == 2


def lhotse_cut(**fields: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0, 1], "source": "call.wav"}
    recording = {"id": "r", "sources": [source], "sampling_rate": RATE, "num_samples": RATE, "duration": 1.0}
    return {
        "id": "c",
        "start": 0.0,
        "duration": 0.5,
        "type": "MonoCut",
        "recording": recording,
        "supervisions": [],
        **fields,
    }


def test_lhotse_cuts_mean_their_channel_and_a_padded_one_its_only_track(tmp_path: Path) -> None:
    padding = {"id": "p", "duration": 1.0, "sampling_rate": RATE, "feat_value": 0.0, "type": "PaddingCut"}
    tracks = [{"type": "MonoCut", "cut": lhotse_cut(channel=1), "offset": 0.0}, {"cut": padding, "offset": 0.5}]
    mix = [{"cut": lhotse_cut(channel=0), "offset": 0.0}, {"cut": lhotse_cut(channel=1), "offset": 0.1}]
    cuts = [lhotse_cut(channel=1), lhotse_cut(channel=[0, 1], type="MultiCut")]
    cuts += [{"id": name, "type": "MixedCut", "tracks": each} for name, each in (("padded", tracks), ("mix", mix))]
    (tmp_path / "cuts.jsonl").write_text("".join(json.dumps(cut) + "\n" for cut in cuts))
    found = listed(tmp_path / "cuts.jsonl")
    # the third names the same audio as the first
    assert [(entry.channel, entry.span_duration_s) for entry in found[:2]] == [(1, 0.5), (None, 0.5)]
    assert found[2].reason == "bad_manifest_row" and "a mix of 2 tracks" in found[2].detail and len(found) == 3


@pytest.mark.parametrize(
    ("name", "text", "spans"),
    [
        ("m.csv", "path,start,end\na.wav,1.0,3.0\na.wav,5,6.5\n", [(1.0, 2.0), (5.0, 1.5)]),
        ("m.tsv", "path\tbegin_time\tend_time\na.wav\t0:01:03.5\t0:01:04\n", [(63.5, 0.5)]),
        ("m.jsonl", '{"audio_filepath": "a.wav", "start_time": 1, "end_time": 3}\n', [(1.0, 2.0)]),
        ("m.jsonl", '{"audio": "a.wav", "start_ms": 500, "end_ms": 1750}\n', [(0.5, 1.25)]),
        ("m.csv", "path;start;end\na.wav;1.0;3.0\n", [(1.0, 2.0)]),
        ("m.jsonl", '{"audio": "a.wav", "offset": 2, "duration": 0.5}\n', [(2.0, 0.5)]),
        ("m.json", '{\n "audio": "a.wav",\n "start": 1,\n "end": 2\n}\n{\n "audio": "a.wav"\n}\n', [(1.0, 1.0), (None, None)]),
    ],
)  # fmt: skip
def test_spans_are_read_as_people_write_them(
    tmp_path: Path, name: str, text: str, spans: list[tuple[float | None, float | None]]
) -> None:
    """GigaSpeech#125: two spans became one recording of twenty seconds."""
    (tmp_path / name).write_text(text)
    found = listed(tmp_path / name)
    assert [(entry.span_start_s, entry.span_duration_s) for entry in found] == spans
    assert {entry.reason for entry in found} == {None} and {entry.metadata for entry in found} == {None}


def test_an_end_before_the_start_is_a_named_rejection(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,start,end\na.wav,3.0,1.0\n")
    (entry,) = listed(tmp_path / "m.csv")
    assert entry.reason == "bad_manifest_row" and "3 to 1 s" in entry.detail


def test_kaldi_folders_common_voice_and_ljspeech_are_understood(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("r1 a/one.wav\nr2 sox x.wav -t wav - |\n")
    (tmp_path / "segments").write_text("u1 r1 0.5 2.0\nu2 r1 2.0 -1\nu3 r2 0 1\n")
    (tmp_path / "text").write_text("u1 hello world\n")
    first, rest, command = listed(tmp_path / "wav.scp")
    assert (first.span_start_s, first.span_duration_s, first.reference) == (0.5, 1.5, "hello world")
    assert (rest.span_start_s, rest.span_duration_s) == (2.0, None) and "never run" in command.detail
    (tmp_path / "train.tsv").write_text("client_id\tpath\tsentence\nx\tc.mp3\tHi\n")
    (voice,) = listed(tmp_path / "train.tsv")
    assert voice.source == str(tmp_path / "clips" / "c.mp3") and voice.reference == "Hi"
    (tmp_path / "metadata.csv").write_text("LJ1|In 1465|In fourteen sixty five\nLJ2|b|b\n")
    one, _ = listed(tmp_path / "metadata.csv")
    assert one.source == str(tmp_path / "wavs" / "LJ1.wav") and one.reference == "In fourteen sixty five"


# --------------------------------------------------------------------------------------------------- names and links


@given(st.binary(min_size=1, max_size=20))
def test_every_name_has_a_text(name: bytes) -> None:
    text = readable(os.fsdecode(name))
    text.encode()
    if b"\\" not in name:
        assert os.fsencode(on_disk(f"/nowhere/{text}")) == b"/nowhere/" + name


def test_a_name_that_is_no_text_is_a_row(tmp_path: Path) -> None:
    """mutagen#648: one Latin-1 name ended the whole run."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "ok.wav").write_bytes(encode(tone(1.0)))
    with open(os.fsencode(folder) + b"/caf\xe9.wav", "wb") as handle:
        handle.write(encode(tone(1.0, 300)))
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "in/ok.wav", "text": "\\ud83d"}\n')
    run([folder, tmp_path / "m.jsonl"], tmp_path / "out", segment="none")
    assert sorted(Path(row["source"]).name for row in rows(tmp_path / "out", "recordings")) == [
        "caf\\xe9.wav",
        "ok.wav",
    ]
    check_accounts(tmp_path / "out")


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    for name in ("disk/b.wav", "in/a.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    os.symlink("../disk", tmp_path / "in" / "part")
    os.symlink("../disk", tmp_path / "in" / "again")
    os.symlink("..", tmp_path / "in" / "loop")
    found = list_inputs((str(tmp_path / "in"),), {}, None, "/nowhere")
    assert sorted(Path(entry.source).name for entry in found.entries) == ["a.wav", "b.wav"]
    assert any("link to a folder" in name for name in found.ignored)


def test_hidden_folders_are_left_out_unless_they_are_named(tmp_path: Path) -> None:
    for name in (".Trash/a.wav", "b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [Path(entry.source).name for entry in listed(tmp_path)] == ["b.wav"]
    assert [Path(entry.source).name for entry in listed(tmp_path / ".Trash")] == ["a.wav"]
    assert [Path(entry.source).name for entry in listed(tmp_path / ".Trash" / "*.wav")] == ["a.wav"]


def test_an_earlier_output_in_the_input_is_left_out_and_output_is_no_input(tmp_path: Path, audiomill: Any) -> None:
    (tmp_path / "a.wav").write_bytes(encode(tone(1.0)))
    run(tmp_path / "a.wav", tmp_path / "old", segment="none")
    found = list_inputs((str(tmp_path),), {}, None, str(tmp_path / "new"))
    assert [Path(entry.source).name for entry in found.entries] == ["a.wav"]
    assert found.ignored["(output of an earlier run)"] == 1
    done = audiomill("transcribe", ".", "--model", "fake://", "--output", ".")
    assert done.returncode == 2 and "is the input and the --output" in done.stderr


# ------------------------------------------------------------------------------------------------------ damaged outputs


def value_of(folder: Path, output: Path) -> str:
    """What a run says."""
    console = Console(file=io.StringIO(), width=1000)
    values = {
        "inputs": (str(folder),),
        "output": str(output),
        "model": "fake://",
        "segment": "none",
        "part_seconds": 1.0,
    }
    config: Any = build(TranscribeConfig, {**values, "engine": "local"})
    run_job(config.job(), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_what_changed_since_it_was_done_is_made_anew_and_what_was_only_touched_is_not(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.wav").write_bytes(encode(noise(RATE, seed=number)))
    value_of(folder, output)
    before = {row["source"][-5:]: row["text"] for row in rows(output, "recordings")}
    (folder / "0.wav").write_bytes(encode(noise(RATE, seed=9)))  # of the same size
    os.utime(folder / "1.wav", (1, 1))
    (folder / "2.wav").unlink()
    told = value_of(folder, output)
    assert "1 recording changed since done" in told and "1 part made anew" in told and "0.wav" in told
    assert "1 planned recording no longer in" in told and "2.wav" in told
    after = {row["source"][-5:]: row["text"] for row in rows(output, "recordings")}
    assert {name for name in before if before[name] != after[name]} == {"0.wav"}
    again = value_of(folder, output)
    assert "since done" not in again
    run(folder, tmp_path / "fresh", segment="none", part_seconds=1.0)
    fresh = {row["source"][-5:]: row["text"] for row in rows(tmp_path / "fresh", "recordings")}
    assert {**after, **fresh} == after, "as if it had never been otherwise"


def test_what_a_manifest_names_is_watched_and_so_is_what_it_says(tmp_path: Path) -> None:
    """A text corrected in the manifest left the old one in `recordings`, and a file written again its old text."""
    manifest, output = tmp_path / "m.jsonl", tmp_path / "out"

    def write(texts: list[str]) -> None:
        rows_ = [{"audio_filepath": f"{number}.wav", "text": text} for number, text in enumerate(texts)]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows_))

    for number in range(3):
        (tmp_path / f"{number}.wav").write_bytes(encode(noise(RATE, seed=number)))
    write(["one", "two", "three", "late"])  # the last one is not there yet
    value_of(manifest, output)
    (tmp_path / "0.wav").write_bytes(encode(noise(RATE, seed=9)))
    (tmp_path / "3.wav").write_bytes(encode(noise(RATE, seed=3)))
    os.utime(tmp_path / "2.wav", (1, 1))
    write(["one", "too", "three", "late"])
    assert "3 recordings changed since done" in value_of(manifest, output)
    assert "since done" not in value_of(manifest, output)
    run(manifest, tmp_path / "fresh", segment="none", part_seconds=1.0)
    for table in ("recordings", "rejections"):
        found, fresh = ([{**row, "part": 0} for row in rows(each, table)] for each in (output, tmp_path / "fresh"))
        assert found == fresh, "as if it had never been otherwise"


@pytest.mark.parametrize(
    "name", ["segments/part-000000.parquet", "recordings/part-000001.parquet", "ledger/part-000000.json"]
)
def test_a_damaged_part_is_named_and_made_anew(tmp_path: Path, audiomill: Any, name: str) -> None:
    for number in range(2):
        (tmp_path / f"{number}.wav").write_bytes(encode(noise(RATE, seed=number)))
    asked = ["transcribe", "0.wav", "1.wav", "--model", "fake://", "--segment", "none", "--part-seconds", "1"]
    assert audiomill(*asked, "--output", "out").returncode == 0
    place = Place(str(tmp_path / "out")).join(name)
    whole_bytes = place.read()
    place.write(whole_bytes[: len(whole_bytes) // 2])
    told = audiomill("inspect", "out")
    assert told.returncode == 1 and name.rsplit("/", 1)[-1] in told.stderr and "Traceback" not in told.stderr
    again = audiomill(*asked, "--output", "out")
    assert again.returncode == 0 and "made anew" in again.stderr
    assert place.read() == whole_bytes or name.startswith("ledger")
    assert audiomill("inspect", "out").returncode == 0
