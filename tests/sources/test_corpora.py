"""Random corpora of known length: every second of every file is told, whatever its container, lies and name."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from audiomill.audio.clock import resampled_length
from tests.support.jobs_by_hand import check_accounts, rows, run
from tests.support.synth import RATE, encode, encode_with_ffmpeg, tar_bytes, tone

LOSSLESS = {
    "wav": ("WAV", "PCM_16"), "wave": ("WAV", "FLOAT"), "aiff": ("AIFF", "PCM_24"), "flac": ("FLAC", "PCM_16"), "w64": ("W64", "PCM_16"),
    "caf": ("CAF", "PCM_16"), "au": ("AU", "PCM_16"), "rf64": ("RF64", "PCM_16"),
}  # fmt: skip
LOSSY = {"ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", None)}
CONTAINED = {
    "mka": ("matroska", "pcm_s16le"),
    "m4a": ("mp4", "aac"),
    "ts": ("mpegts", "aac"),
    "webm": ("webm", "libopus"),
}
RATES = (8_000, 16_000, 44_100, 48_000)
DELAY_SAMPLES = 2_400
"""What encoders of lossy formats add or take at the ends: about two frames."""
NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\0"), min_size=1, max_size=20)
LIES = ("none", "none", "streamed size", "size of zero", "junk behind", "tag before", "joined", "cut short")


class Made(NamedTuple):
    """A file, and how many seconds it has, give or take `tolerance_s`."""

    name: str
    content: bytes
    seconds: float
    tolerance_s: float
    is_cut: bool

    def __repr__(self) -> str:
        return f"{self.name!r} of {self.seconds} s"


@st.composite
def files(draw: Any) -> Made:
    suffix = draw(st.sampled_from([*LOSSLESS, *LOSSY, *CONTAINED]))
    rate, seconds = draw(st.sampled_from(RATES)), draw(st.floats(0.3, 3.0))
    if suffix in ("opus", "webm", "ts", "m4a") and rate == 44_100:
        rate = 48_000  # Opus knows no other, and AAC's frames would not end with the sound
    waveform, lie = tone(seconds, draw(st.sampled_from([200, 440, 1000])), rate), draw(st.sampled_from(LIES))
    if suffix in CONTAINED:
        content = encode_with_ffmpeg(waveform, rate, *CONTAINED[suffix])
    else:
        content = encode(waveform, rate, *{**LOSSLESS, **LOSSY}[suffix])
    length, is_cut = len(waveform), False
    if lie in ("streamed size", "size of zero") and suffix in ("wav", "wave"):
        content = with_size(content, 0xFFFFFFFF if lie == "streamed size" else 0)
    elif lie == "junk behind" and suffix in ("wav", "flac", "mp3"):
        content += b"\0" * draw(st.integers(1, 3000))
    elif lie == "tag before" and suffix in ("mp3", "flac"):
        content = b"ID3\x04\0\0" + bytes([0, 0, 1, 0]) + b"\0" * 128 + content
    elif lie == "joined" and suffix in ("ogg", "opus", "flac", "mp3", "aiff", "au", "caf", "rf64"):
        content, length = content * 2, 2 * length
    elif lie == "cut short" and suffix in LOSSLESS and (suffix != "flac" or seconds > 1):
        content, is_cut = content[: -len(content) // 3], True
    at_rate = resampled_length(length, rate) / RATE
    return Made(
        f"{draw(NAMES)}.{suffix}",
        content,
        at_rate,
        1e-9 if suffix in (*LOSSLESS, "mka") else DELAY_SAMPLES / rate,
        is_cut,
    )


def with_size(wav: bytes, size: int) -> bytes:
    at = wav.index(b"data") + 4
    return wav[:4] + struct.pack("<I", size) + wav[8:at] + struct.pack("<I", size) + wav[at + 4 :]


def write(made: dict[str, Made], folder: Path, packing: str) -> Path:
    if packing == "folder":
        (folder / "in").mkdir()
        for name, each in made.items():
            (folder / "in" / name).write_bytes(each.content)
        return folder / "in"
    if packing == "parquet":
        contents = [each.content for each in made.values()]
        structs = pa.StructArray.from_arrays([pa.array(contents, pa.binary()), pa.array(list(made))], ["bytes", "path"])
        pq.write_table(pa.table({"audio": structs}), folder / "in.parquet", row_group_size=3)
        return folder / "in.parquet"
    place = folder / ("in.tar" if packing == "tar" else "in.tar.gz")
    place.write_bytes(
        tar_bytes({name: each.content for name, each in made.items()}, "w" if packing == "tar" else "w:gz")
    )
    return place


@settings(
    max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(st.lists(files(), min_size=8, max_size=14), st.sampled_from(["folder", "tar", "tar.gz", "parquet"]))
def test_every_second_of_every_file_is_told(drawn: list[Made], packing: str) -> None:
    made = {f"{number} {each.name}": each for number, each in enumerate(drawn)}
    with tempfile.TemporaryDirectory() as name:
        source = write(made, Path(name), packing)
        run(source, Path(name) / "out", min_recording_seconds=0.01)
        check_accounts(Path(name) / "out")
        assert rows(Path(name) / "out", "rejections") == []
        told = {
            (row["member"] or row["source"].rsplit("/", 1)[-1]): row for row in rows(Path(name) / "out", "recordings")
        }
    assert told.keys() == made.keys()
    for name, each in made.items():
        row = told[name]
        seconds = row["speech_s"] + row["non_speech_s"] + row["failed_s"]
        assert abs(seconds - each.seconds) <= each.tolerance_s, (
            name,
            seconds,
            each.seconds,
            row["error"],
        )
        if each.is_cut:
            assert row["failed_s"] > 0.2 * seconds and row["error"], (name, row["error"])
        else:
            assert row["failed_s"] == 0 and row["error"] is None, (name, row["failed_s"], row["error"])


def test_the_one_whole_frame_of_a_flac_that_is_cut_short_is_kept(tmp_path: Path) -> None:
    """FFmpeg finds no place behind it, and said that the operation is not permitted."""
    content = encode(tone(2.0, 440, 8_000), 8_000, *LOSSLESS["flac"])
    (tmp_path / "cut.flac").write_bytes(content[: -len(content) // 3])
    run(tmp_path / "cut.flac", tmp_path / "out", min_recording_seconds=0.01)
    (row,) = rows(tmp_path / "out", "recordings")
    assert row["non_speech_s"] == pytest.approx(1.024) and row["failed_s"] == pytest.approx(0.976)
    assert "truncated: expected 2.000 s, got 1.024 s" in row["error"]
