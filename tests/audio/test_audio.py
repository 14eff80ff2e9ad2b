"""Decoding, resampling, voice activity, clock and buckets: known answers and second implementations."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audiomill.audio.bucketing import budget_batches, padding_waste_pct
from audiomill.audio.clock import resampled_length, samples_from_seconds, seconds_from_samples
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.decode import open_audio, planned_duration_s
from audiomill.audio.recording import Ending, RecordingSpec, StageClock, cut_recording
from audiomill.audio.resample import resample
from audiomill.audio.vad import DETECTORS, FRAME_SAMPLES, SpeechProbabilities, detector, voiced_frames
from audiomill.errors import RecordingRejected
from tests.support.synth import RATE, cutting, encode, encode_with_ffmpeg, tone

SPEC = cutting("vad")
FIXED = cutting("fixed")


def cut(content: bytes, spec: Any = SPEC, channels: str = "mix", **span: Any) -> tuple[list[Segment], Ending]:
    settings = {"start_s": None, "duration_s": None, "min_s": 0.1, "max_s": 1e6} | span
    events = list(cut_recording(io.BytesIO(content), RecordingSpec(channels=channels, **settings), spec, StageClock()))
    assert isinstance(events[-1], Ending)
    return [e for e in events if isinstance(e, Segment)], events[-1]


def whole(content: bytes) -> Any:
    """All samples of a recording, by fixed windows."""
    cuts, _ = cut(content, FIXED)
    return np.concatenate([c.pcm_T for c in cuts])


def correlation(one: Any, two: Any) -> float:
    n = min(len(one), len(two))
    return float(np.corrcoef(one[:n].astype(float), two[:n].astype(float))[0, 1])


@given(st.integers(1, 10**9), st.sampled_from([8_000, 11_025, 22_050, 44_100, 48_000, 96_000]))
def test_resampled_length_is_the_nearest_whole_number(num_samples: int, rate: int) -> None:
    exact = num_samples * 16_000 / rate
    assert abs(resampled_length(num_samples, rate) - exact) <= 0.5


@given(st.integers(0, 10**10))
def test_seconds_and_samples_are_inverse(num_samples: int) -> None:
    assert samples_from_seconds(seconds_from_samples(num_samples)) == num_samples


@given(st.lists(st.integers(1, 480_000), max_size=200), st.integers(1, 3_000_000), st.integers(1, 64))
def test_batches_hold_every_row_once_and_keep_to_the_budget(lengths: list[int], budget: int, max_rows: int) -> None:
    array = np.array(lengths, np.int64)
    batches = list(budget_batches(array, budget, max_rows))
    assert sorted(i for rows in batches for i in rows.tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) <= max_rows and (len(rows) == 1 or len(rows) * array[rows].max() <= budget)


def test_padding_waste_is_the_share_of_padding() -> None:
    assert padding_waste_pct(75, 100) == 25 and padding_waste_pct(0, 0) == 0


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
@pytest.mark.parametrize("size", [1, 1_000, 65_536])
def test_streamed_resampling_equals_one_call_and_has_the_stated_length(rate: int, size: int) -> None:
    waveform = tone(0.3 if size == 1 else 2.0, 300, rate)[:, None]

    def blocks() -> Iterator[Any]:
        for at in range(0, len(waveform), size):
            yield waveform[at : at + size]

    out = np.concatenate(list(resample(blocks(), rate, 1)))
    assert len(out) == resampled_length(len(waveform), rate)
    expected = soxr.resample(waveform, rate, 16_000, quality="HQ")
    n = min(len(out), len(expected))
    assert np.abs(out[:n] - expected[:n]).max() < 1e-3


SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "GSM610"]


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_wav_subtypes_decode_to_the_same_sound(subtype: str) -> None:
    waveform = tone(1.5, 350, 8_000)
    got = whole(encode(waveform, 8_000, "WAV", subtype))
    expected = soxr.resample(waveform, 8_000, 16_000)
    assert correlation(got, expected) > 0.98


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "AIFF", "AU", "CAF", "NIST", "W64", "RF64", "MP3"])
def test_containers_of_libsndfile(kind: str) -> None:
    got = whole(encode(tone(2.0, 350), RATE, kind))
    assert abs(len(got) - 2 * RATE) < 0.1 * RATE and correlation(got, tone(2.0, 350)) > 0.9


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp4", "aac", 44_100),
        ("adts", "aac", 16_000),
        ("webm", "libopus", 48_000),
        ("matroska", "pcm_s16le", 22_050),
        ("ogg", "libopus", 48_000),
        ("mp4", "alac", 44_100),
    ],
)
def test_containers_of_ffmpeg(container: str, codec: str, rate: int) -> None:
    got = whole(encode_with_ffmpeg(tone(2.0, 350, rate), rate, container, codec))
    assert abs(len(got) - 2 * RATE) < 0.15 * RATE  # AAC keeps its priming and last frame
    spectrum = np.abs(np.fft.rfft(got[4_000:28_000].astype(float)))
    assert abs(spectrum.argmax() * 16_000 / 24_000 - 350) < 2


def test_16_bit_audio_at_16_khz_passes_unchanged() -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, 50_000).astype(np.int16)
    assert np.array_equal(whole(encode(pcm)), pcm)


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "x.mp3").write_bytes(encode(tone(1.0), RATE, "FLAC"))
    with (tmp_path / "x.mp3").open("rb") as handle, open_audio(handle) as audio:
        assert sum(map(len, audio.blocks_TK)) == RATE


def test_channels_are_mixed_split_or_picked() -> None:
    left, right = tone(2.0, 300), tone(2.0, 900)
    content = encode(np.stack([left, right], 1))
    mixed, _ = cut(content, FIXED, "mix")
    first, _ = cut(content, FIXED, "first")
    split, ending = cut(content, FIXED, "split")
    assert [c.channel for c in (*mixed, *first, *split)] == [None, 0, 0, 1]
    assert np.abs(mixed[0].pcm_T - (left + right) / 2 * 32768).max() <= 2
    assert np.array_equal(first[0].pcm_T, split[0].pcm_T) and np.abs(split[1].pcm_T - right * 32768).max() <= 1
    assert ending.speech_samples == ending.num_samples == 2 * RATE and ending.num_channels == 2


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_a_span_is_what_a_cut_of_the_whole_is(kind: str) -> None:
    content = encode(np.random.default_rng(2).normal(0, 0.1, RATE * 4).astype(np.float32), RATE, kind)
    (piece,), ending = cut(content, FIXED, start_s=1.25, duration_s=1.5)
    assert (piece.start, piece.stop, ending.origin, ending.num_samples) == (20_000, 44_000, 20_000, 24_000)
    assert np.abs(piece.pcm_T.astype(int) - whole(content)[20_000:44_000]).max() <= 1


def test_a_span_of_an_mp4_starts_where_it_says() -> None:
    clicks = np.zeros(48_000 * 6, np.float32)
    clicks[48_000 * 4 : 48_000 * 4 + 480] = 0.9
    (piece,), _ = cut(encode_with_ffmpeg(clicks, 48_000, "mp4", "aac"), FIXED, start_s=3.0, duration_s=2.0)
    assert abs(int(np.abs(piece.pcm_T).argmax()) - 16_000) < 1_200  # the encoder's priming stays in


def test_a_truncated_flac_keeps_what_decodes_and_says_what_is_missing() -> None:
    content = encode(np.random.default_rng(1).normal(0, 0.1, RATE * 10).astype(np.float32), RATE, "FLAC")
    _, ending = cut(content[: len(content) // 2], FIXED)
    assert ending.num_samples == 10 * RATE and 0.3 < ending.failed_samples / ending.num_samples < 0.7
    assert ending.error is not None and "truncated" in ending.error


def test_a_truncated_wav_is_known_by_its_header() -> None:
    content = encode(tone(4.0))
    _, ending = cut(content[: len(content) // 4], FIXED)
    assert ending.num_samples == 4 * RATE and 2.9 * RATE < ending.failed_samples < 3.1 * RATE


def test_a_streamed_wav_without_sizes_is_complete() -> None:
    content = encode(tone(1.0))
    at = content.index(b"data") + 4
    _, ending = cut(content[:4] + b"\xff" * 4 + content[8:at] + b"\xff" * 4 + content[at + 4 :], FIXED)
    assert ending.failed_samples == 0 and ending.num_samples == RATE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"letter " * 99, "not_audio"),
        (encode(tone(0.02)), "too_short"),
        (encode(np.zeros(0)), "no_samples"),
        (encode(np.array([0.1, np.inf] * 4000), RATE, "WAV", "FLOAT"), "nan_samples"),
    ],
)
def test_bad_bytes_are_named(content: bytes, reason: str) -> None:
    with pytest.raises(RecordingRejected) as caught:
        cut(content)
    assert caught.value.reason == reason


def test_a_video_without_sound_is_named() -> None:
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        out.mux(stream.encode(None))
    with pytest.raises(RecordingRejected) as caught:
        cut(sink.getvalue())
    assert caught.value.reason == "no_audio_stream"


def test_playlists_cannot_open_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(encode(tone(1.0)))
    for playlist in (
        f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.wav\n",
        f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n",
    ):
        with pytest.raises(RecordingRejected):
            cut(playlist.encode())


def test_header_durations() -> None:
    assert planned_duration_s(io.BytesIO(encode(tone(2.5)))) == 2.5
    assert planned_duration_s(io.BytesIO(encode(tone(2.5), RATE, "FLAC"))) == 2.5
    assert planned_duration_s(io.BytesIO(b"nothing of the kind")) is None


def container(kind: str, codec: str, seconds: float, with_video: bool) -> bytes:
    """Noise that grows louder, and a picture that changes, as FFmpeg writes them."""
    import av

    sink, rng = io.BytesIO(), np.random.default_rng(0)
    with av.open(sink, "w", format=kind) as file:
        audio: Any = file.add_stream(codec, rate=44_100, layout="mono")
        if with_video:
            video: Any = file.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
            for _ in range(int(25 * seconds)):
                picture = rng.integers(0, 255, (120, 160, 3), np.uint8)
                file.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            file.mux(video.encode())
        samples = rng.normal(0, 3000, int(44_100 * seconds)) * np.linspace(0.1, 1, int(44_100 * seconds))
        frame = av.AudioFrame.from_ndarray(samples.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 44_100
        size = audio.codec_context.frame_size or 1024
        resampler = av.AudioResampler(audio.codec_context.format.name, "mono", 44_100, frame_size=size)
        for each in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(audio.encode(each))
        file.mux(audio.encode())
    return sink.getvalue()


@pytest.mark.parametrize(
    ("kind", "codec", "with_video"),
    [("avi", "mp3", True), ("mpegts", "mp2", True), ("adts", "aac", False), ("wv", "wavpack", False)],
)
def test_lengths_that_no_header_states_are_estimated_from_the_track(kind: str, codec: str, with_video: bool) -> None:
    content = container(kind, codec, 12.0, with_video)
    assert planned_duration_s(io.BytesIO(content)) == pytest.approx(12.0, rel=0.05)


def test_a_flac_stream_that_states_no_length_is_estimated_from_its_frames() -> None:
    content = bytearray(encode(tone(12.0), RATE, "FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # the number of samples, 0 for unknown
    assert planned_duration_s(io.BytesIO(bytes(content))) == pytest.approx(12.0, rel=0.05)


def test_vad_equals_the_silero_package_frame_by_frame(voices: Any) -> None:
    import torch
    from silero_vad import load_silero_vad

    threads = torch.get_num_threads()
    model = load_silero_vad()
    pcm = np.concatenate([np.zeros(9_000, np.int16), voices[1][0], np.zeros(20_000, np.int16), voices[0][0]] * 3)
    expected = [
        float(model(torch.from_numpy(np.pad(frame, (0, 512 - len(frame))).astype(np.float32) / 32768), 16_000))
        for frame in (pcm[at : at + 512] for at in range(0, len(pcm), 512))
    ]
    torch.set_num_threads(threads)
    stream = SpeechProbabilities()
    got = np.concatenate([*(stream.push(piece) for piece in np.array_split(pcm, 17)), stream.finish()])
    assert np.abs(got - expected).max() < 1e-3


@pytest.mark.parametrize("name", sorted(DETECTORS))
@given(size=st.integers(0, 40_000), pieces=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_voice_activity_does_not_depend_on_how_a_recording_arrives(name: str, size: int, pieces: int) -> None:
    pcm = np.random.default_rng(size).integers(-9000, 9000, size).astype(np.int16)
    whole, stream = detector(name), detector(name)
    expected = np.concatenate([whole.push(pcm), whole.finish()])
    got = np.concatenate([*(stream.push(piece) for piece in np.array_split(pcm, pieces)), stream.finish()])
    assert len(expected) == -(-size // FRAME_SAMPLES) and np.array_equal(got, expected)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_each_detector_tells_speech_from_silence(voices: Any, name: str) -> None:
    gap = np.zeros(2 * RATE, np.int16)
    is_voiced_F = voiced_frames(np.concatenate([gap, voices[0][0], gap]), 0.5, name)
    edge = len(gap) // FRAME_SAMPLES
    assert not is_voiced_F[: edge - 2].any() and not is_voiced_F[len(is_voiced_F) - edge + 12 :].any()
    assert is_voiced_F[edge:-edge].mean() > 0.5


def test_a_frame_of_webrtc_is_the_mean_of_the_votes_on_its_steps(voices: Any) -> None:
    import webrtcvad

    pcm = voices[0][0][: len(voices[0][0]) // 2560 * 2560]
    modes = [webrtcvad.Vad(mode) for mode in range(4)]
    votes = [np.mean([mode.is_speech(s.tobytes(), RATE) for mode in modes]) for s in pcm.reshape(-1, 160)]
    middles = np.arange(len(votes)) * 160 + 80
    expected = [np.mean(np.array(votes)[middles // 512 == frame]) for frame in range(len(pcm) // 512)]
    voice = detector("webrtc")
    assert np.allclose(np.concatenate([voice.push(pcm), voice.finish()])[: len(expected)], expected)


def test_speech_is_found_and_every_sample_accounted_for(voices: Any) -> None:
    gap = np.zeros(5 * RATE, np.int16)
    pcm = np.concatenate([gap, voices[1][0], gap, voices[0][0], gap])
    cuts, ending = cut(encode(pcm))
    assert len(cuts) == 2
    assert ending.speech_samples == sum(c.stop - c.start for c in cuts) and ending.num_samples == len(pcm)
    for piece in cuts:
        assert np.array_equal(piece.pcm_T, pcm[piece.start : piece.stop])


@given(st.integers(1, 400_000))
@settings(max_examples=15, deadline=None)
def test_fixed_windows_lose_no_sample(num_samples: int) -> None:
    pcm = np.random.default_rng(num_samples).integers(-9000, 9000, max(num_samples, 1_600)).astype(np.int16)
    assert np.array_equal(whole(encode(pcm)), pcm)


@pytest.mark.parametrize("pause_s", [0, 1, pytest.param(12, marks=pytest.mark.nightly)])
def test_memory_does_not_grow_with_the_recording(voices: Any, pause_s: int) -> None:
    from audiomill.audio.recording import _Track

    track = _Track(Segment(np.zeros(0, np.int16), 0, 0, ("r", None), 0), SPEC)
    piece = np.concatenate([voices[1][0], np.zeros(pause_s * RATE, np.int16), voices[0][0]])
    held, num_cuts = [], 0
    for _ in range(200):
        num_cuts += len(track.push(piece))
        held.append(track._kept.num_held)
    assert num_cuts > 20 and max(held) < 100 * RATE
