"""Streams that do not state their length, or state another one, by construction."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import soundfile

from audiomill.audio.decode import open_audio, planned_duration_s
from audiomill.errors import RecordingRejected

RATE, SECONDS = 16_000, 60
VBR = {"compression_level": "5", "global_quality": str(4 * 118), "flags": "+qscale"}


def stairs() -> np.ndarray:
    """A tone that is 40 Hz higher every second; quiet at first, noisy later, so that a variable bit rate varies."""
    second = np.arange(SECONDS * RATE) // RATE
    wave = 0.3 * np.sin(np.cumsum(2 * np.pi * (300 + 40 * second) / RATE))
    wave[: 25 * RATE] *= 1e-4
    wave[30 * RATE :] += np.random.default_rng(1).normal(0, 0.05, 30 * RATE)
    return wave.astype(np.float32)


def encoded(
    wave_T: np.ndarray, codec: str, kind: str, options: dict[str, str] | None = None, shift=lambda s: 0.0, **muxer
) -> bytes:  # type: ignore[no-untyped-def]
    """`shift`: seconds that the time stamps of a moment are off by."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=kind, options=muxer) as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.layout = "mono"
        is_float = codec in ("aac", "wmav2")
        size = 1024 if is_float else 1152
        for at in range(0, len(wave_T) - size + 1, size):
            part = wave_T[None, at : at + size]
            values = part if is_float else (np.clip(part, -1, 1) * 32767).astype("<i2")
            frame = av.AudioFrame.from_ndarray(values, format="fltp" if is_float else "s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, at
            for packet in stream.encode(frame):
                jump = int(shift(at / RATE) / packet.time_base)
                packet.pts, packet.dts = packet.pts + jump, packet.dts + jump
                container.mux(packet)
        for packet in stream.encode(None):
            jump = int(shift(len(wave_T) / RATE) / packet.time_base)
            packet.pts, packet.dts = packet.pts + jump, packet.dts + jump
            container.mux(packet)
    return sink.getvalue()


def seconds_of(content: bytes, start_s: float = 0.0) -> tuple[float, list[str], list[str]]:
    with open_audio(io.BytesIO(content), start_s) as audio:
        return sum(map(len, audio.blocks_TK)) / audio.sample_rate, audio.problems, audio.notes


def pitch_at(content: bytes, start_s: float) -> int:
    with open_audio(io.BytesIO(content), start_s) as audio:
        wave = np.concatenate(list(audio.blocks_TK))[RATE // 4 : RATE // 4 * 3, 0]
    return int(np.abs(np.fft.rfft(wave)).argmax()) * 2


UNTOLD = [("libmp3lame", "mp3", VBR, {"write_xing": "0"}), ("mp2", "mp2", {}, {}), ("aac", "adts", {}, {})]


@pytest.mark.parametrize(("codec", "kind", "options", "muxer"), UNTOLD, ids=["mp3 without Xing", "mp2", "adts"])
def test_a_stream_that_does_not_state_its_length_is_read_to_its_end(codec, kind, options, muxer) -> None:  # type: ignore[no-untyped-def]
    content = encoded(stairs(), codec, kind, options, **muxer)
    seconds, problems, _ = seconds_of(content)
    assert seconds == pytest.approx(SECONDS, abs=0.2) and not problems
    assert seconds_of(content, 40.0)[0] == pytest.approx(SECONDS - 40, abs=0.2)
    assert pitch_at(content, 35.0) == 300 + 35 * 40
    assert planned_duration_s(io.BytesIO(content)) == pytest.approx(SECONDS, rel=0.1)


def test_an_mp3_that_states_its_length_is_planned_by_it_and_joined_ones_are_read_whole() -> None:
    wave = stairs()
    stated = encoded(wave, "libmp3lame", "mp3", VBR, id3v2_version="0")
    untold = encoded(wave, "libmp3lame", "mp3", VBR, id3v2_version="0", write_xing="0")
    assert planned_duration_s(io.BytesIO(stated)) == pytest.approx(SECONDS, abs=0.2)
    assert seconds_of(stated + untold)[0] == pytest.approx(2 * SECONDS, abs=0.3)


@pytest.mark.parametrize(
    ("codec", "kind"), [("mp2", "mpegts"), ("mp2", "mpeg"), ("aac", "matroska"), ("aac", "flv"), ("wmav2", "asf")]
)
def test_a_container_is_planned_by_its_time_stamps_and_not_by_its_size(codec: str, kind: str) -> None:
    content = encoded(stairs()[: 3 * RATE], codec, kind, {"b": "64000"})
    assert planned_duration_s(io.BytesIO(content)) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize(
    ("codec", "kind"), [("mp2", "mpegts"), ("aac", "matroska"), ("aac", "flv"), ("wmav2", "asf"), ("aac", "mp4")]
)
def test_a_clock_that_jumps_by_hours_is_no_pause_and_a_pause_is_one(codec: str, kind: str) -> None:
    wave = stairs()[: 7 * RATE]
    jump = encoded(wave, codec, kind, {"b": "64000"}, lambda s: 18_000.0 * (s >= 3) + 20.0 * (s >= 5))
    seconds, problems, notes = seconds_of(jump)
    assert seconds == pytest.approx(27, abs=0.4) and not problems
    assert len(notes) == 1 and "jump by 18000 s" in notes[0]
    assert (planned_duration_s(io.BytesIO(jump)) or 0) < 100
    late = encoded(wave, codec, kind, {"b": "64000"}, lambda s: 18_000.0)
    assert seconds_of(late)[0] == pytest.approx(7, abs=0.4)


def test_a_span_that_begins_inside_a_packet_of_a_program_stream_is_not_damaged() -> None:
    content = encoded(stairs(), "mp2", "mpeg")
    seconds, problems, _ = seconds_of(content, 40.0)
    assert seconds == pytest.approx(20, abs=0.2) and not problems


def test_flac_of_unknown_length_is_whole_and_a_span_behind_its_end_is_outside() -> None:
    sink = io.BytesIO()
    soundfile.write(sink, stairs()[: 11 * RATE], RATE, format="FLAC", subtype="PCM_16")
    content = bytearray(sink.getvalue())
    info = content.index(b"fLaC") + 8
    content[info + 13] &= 0xF0
    content[info + 14 : info + 18] = bytes(4)
    assert seconds_of(bytes(content)) == (11.0, [], [])
    assert seconds_of(bytes(content), 5.0) == (6.0, [], [])
    with pytest.raises(RecordingRejected, match="offset_out_of_range"):
        seconds_of(bytes(content), 15.0)
    assert seconds_of(bytes(content[: len(content) * 2 // 3]))[1], "cut in the middle of a frame"
