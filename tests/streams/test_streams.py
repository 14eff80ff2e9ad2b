"""Words while the audio comes: the same however it arrives and whoever else is heard, and those of a job over files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.stream_chunks import StreamChunks
from audiomill.config.stages import ChunksConfig, ModelConfig
from audiomill.errors import UsageError
from audiomill.models.base import TimedText, Transcript
from audiomill.streams.listener import Listener
from audiomill.streams.local_agreement import LocalAgreement, agreed, already
from audiomill.streams.local_agreement import drop_timeless_repeats as that_take_time
from audiomill.streams.simulated import played
from audiomill.streams.stream_words import StreamWord
from audiomill.text.wer import score_pair
from tests.support.command_line import in_process
from tests.support.encoder_checkpoints import save_moonshine
from tests.support.jobs_by_hand import check_accounts, rows, run
from tests.support.scale import daily
from tests.support.synth import encode, noise
from tests.support.tone_language import RATE, sentence, spoken

CPU = ModelConfig(device="cpu", precision="fp32")
FEW = ChunksConfig(chunk_seconds=0.5, left_context_seconds=2.0, look_ahead_seconds=0.3)
Known = list[tuple[str, float, float, bool]]


@pytest.fixture(scope="module")
def talk() -> tuple[NDArray[np.int16], str]:
    """Ten sentences of tones, one behind the other."""
    texts = [sentence(number) for number in range(800, 810)]
    parts = [
        part for number, text in enumerate(texts) for part in (spoken(text, number), np.zeros(RATE // 4, np.int16))
    ]
    return np.concatenate(parts), " ".join(texts)


@pytest.fixture(scope="module")
def tones(tone_model: Path) -> Listener:
    return Listener(str(tone_model / "model" / "checkpoint"), chunks=FEW, settings=CPU)


def known(words: list[StreamWord]) -> Known:
    """What does not depend on how fast it was computed."""
    return [(word.text, word.start_s, word.stop_s, word.is_final) for word in words]


def accept(listener: Listener, pcm: NDArray[np.int16], cuts: list[int]) -> Known:
    """Words of a stream whose audio comes in pieces."""
    stream, found = listener.stream(), []
    for piece in np.split(pcm, sorted(cuts)):
        found += stream.insert(piece)
    return known([*found, *stream.finish()])


def final(words: Known) -> str:
    return " ".join(text for text, _, _, is_final in words if is_final)


def test_words_come_in_their_order_and_are_those_of_the_whole(tones: Listener, talk: Any) -> None:
    pcm, text = talk
    words = accept(tones, pcm, [])
    starts = [start for _, start, _, is_final in words if is_final]
    assert starts == sorted(starts)
    assert score_pair(text, final(words), None)[0].rate < 0.15
    assert any(not is_final for _, _, _, is_final in words), "words that may change are told too"


@pytest.mark.parametrize("count", [16_000, 80_000, 79_999, 80_001])
def test_the_last_chunk_is_heard_whole_or_not(tones: Listener, talk: Any, tone_model: Path, count: int) -> None:
    """Chunks have 8,000 samples: what waits for audio behind it is heard although none comes."""
    from tests.support.jobs_by_hand import loaded

    pcm = talk[0][:count]
    whole = loaded(tone_model / "model" / "checkpoint")
    segment = Segment(pcm, 0, 0, ("whole", None), 0, None)
    (transcript,) = whole.transcripts([segment], [whole.forward([segment])[0].text])
    last, words = transcript.words[-1], accept(tones, pcm, list(range(8_000, count, 8_000)))
    ends = [(text, stop) for text, _, stop, is_final in words if is_final]
    assert ends[-1][0] == last.text and ends[-1][1] == pytest.approx(last.stop / RATE, abs=0.05)


def test_a_file_is_read_block_by_block_to_its_end(talk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it ends with a block, or a little behind one."""
    from audiomill.config.stages import SourceConfig
    from audiomill.streams import sources

    monkeypatch.setattr(sources, "BLOCK_S", 1.0)
    for count in (RATE, 3 * RATE, 3 * RATE + 100, 2 * RATE + 5_000):
        soundfile.write(tmp_path / "talk.wav", talk[0][:count], RATE)
        found = np.concatenate(list(sources.open_stream(str(tmp_path / "talk.wav"), SourceConfig())))
        assert abs(len(found) - count) <= 400 and np.array_equal(found, talk[0][: len(found)])


@settings(max_examples=daily(4, 20), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.integers(0, 300_000), max_size=12))
def test_words_do_not_depend_on_how_audio_arrives(tones: Listener, talk: Any, cuts: list[int]) -> None:
    pcm = talk[0][:100_000]
    assert accept(tones, pcm, [min(cut, len(pcm)) for cut in cuts]) == accept(tones, pcm, [])


def test_many_streams_at_once_say_what_each_says_alone(tones: Listener, talk: Any) -> None:
    pcm = talk[0]
    clips = [
        pcm[at : at + length]
        for at, length in ((0, 60_000), (30_000, 9_000), (80_000, 47_001), (5_000, 100), (90_000, 60_000))
    ]
    streams = [tones.stream() for _ in clips]
    together: list[list[StreamWord]] = [[] for _ in clips]
    for at in range(0, max(map(len, clips)), 8_000):
        told = tones.insert([(stream, clip[at : at + 8_000]) for stream, clip in zip(streams, clips, strict=True)])
        together = [before + now for before, now in zip(together, told, strict=True)]
    last = tones.finish(streams)
    for clip, before, now in zip(clips, together, last, strict=True):
        assert known(before + now) == accept(tones, clip, list(range(8_000, len(clip), 8_000)))


def test_a_job_over_files_writes_the_words_of_the_stream(
    tones: Listener, talk: Any, tone_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "talk.wav", talk[0], RATE)
    soundfile.write(tmp_path / "in" / "one.wav", talk[0][:3_000], RATE)
    options = {"chunk_seconds": 0.5, "left_context_seconds": 2.0, "look_ahead_seconds": 0.3, "precision": "fp32"}
    run(tmp_path / "in", tmp_path / "out", model=tone_model / "model" / "checkpoint", segment="stream", **options)
    check_accounts(tmp_path / "out")
    recordings = {Path(row["source"]).stem: row for row in rows(tmp_path / "out", "recordings")}
    segments = [row for row in rows(tmp_path / "out", "segments") if row["recording_id"] == recordings["talk"]["id"]]
    assert [row["stop_s"] - row["start_s"] for row in segments[:-1]] == pytest.approx([0.5] * (len(segments) - 1))
    words = [(word["word"], word["start_s"]) for row in segments for word in row["words"]]
    streamed = [(text, start) for text, start, _, is_final in accept(tones, talk[0], []) if is_final]
    assert [text for text, _ in words] == [text for text, _ in streamed]
    assert [start for _, start in words] == pytest.approx([start for _, start in streamed], abs=1e-3)
    assert " ".join(text for text, _ in words) == recordings["talk"]["text"]


def test_other_chunks_are_other_settings(tone_model: Path, talk: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "talk.wav", talk[0][:30_000], RATE)
    model: dict[str, Any] = {"model": tone_model / "model" / "checkpoint", "segment": "stream"}
    run(tmp_path / "in", tmp_path / "out", chunk_seconds=0.5, **model)
    with pytest.raises(UsageError, match="chunk"):
        run(tmp_path / "in", tmp_path / "out", chunk_seconds=0.6, **model)


@given(
    st.integers(0, 40_000),
    st.integers(1, 5),
    st.integers(0, 9),
    st.integers(0, 5_000),
    st.lists(st.integers(0, 9_000), max_size=6),
)
def test_chunks_cover_a_recording_once_with_what_stands_around_them(
    count: int, chunk: int, left: int, right: int, pushes: list[int]
) -> None:
    cutter, spans, done = StreamChunks(1000 * chunk, 1000 * left, right), [], 0
    for size in [*pushes, 40_000]:
        piece = np.zeros(min(size, count - done), np.int16)
        done += len(piece)
        spans += cutter.push(piece)
        assert all(span.stop + span.right <= done for span in spans)
    spans += cutter.finish()
    assert [span.start for span in spans] == list(range(0, count, 1000 * chunk))
    assert all(span.left == min(1000 * left, span.start) for span in spans)
    assert all(span.right == min(right, count - span.stop) for span in spans)
    assert not spans or spans[-1].stop == count


# Whisper


def look_at(*looks: str) -> Any:
    """Transcripts in their order: words of half a second each."""
    waiting = iter(looks)

    def transcripts(segments: Any, texts: Any) -> list[Transcript]:
        words = tuple(TimedText(word, 8_000 * n, 8_000 * (n + 1), 1.0) for n, word in enumerate(next(waiting).split()))
        return [Transcript("", None, None, None, None, words, None)]

    return transcripts


def test_what_two_looks_agree_on_is_final(voices: Any) -> None:
    ear = LocalAgreement("s", None, look_at("A b", "a b. C", "a b. c d"))
    pcm = np.concatenate([voices[0][0]] * 3)[: 3 * RATE]
    found = []
    for at in range(3):
        look = ear.due(pcm[at * RATE : (at + 1) * RATE], False)
        assert look is not None and look.start >= 0
        found.append(ear.accept(look._replace(start=0), None))
    assert [[word for word, _, _ in each.final] for each in found] == [[], ["a", "b."], ["c"]]
    assert [[word for word, _, _ in each.partial] for each in found] == [["A", "b"], ["C"], ["d"]]
    assert [word for word, _, _ in ear.finish().final] == ["d"]
    assert agreed([("No", 0, 1), ("x", 1, 2)], [("no,", 0, 1), ("y", 1, 2)]) == 1


def timed(text: str, first: int = 0) -> list[tuple[str, int, int]]:
    return [(word, 1000 * n, 1000 * (n + 1)) for n, word in enumerate(text.split(), first)]


@pytest.mark.parametrize(
    ("final", "now", "rest"),
    [
        ("", "a b", "a b"),
        ("a b", "a b c", "c"),
        ("and so my america", "and so my Americans. Ask not", "Ask not"),  # a word that was cut by the audio's end
        ("no no", "no no no", "no"),  # said again, not doubled
        ("you can do", "what you can do for", "for"),
        ("what you can do", "you can do for", "for"),
        ("a b c", "a b", ""),
    ],
)
def test_final_words_are_found_again_in_the_next_look(final: str, now: str, rest: str) -> None:
    words = timed(now)
    assert [word for word, _, _ in words[already(timed(final), words, 1000 * len(final.split())) :]] == rest.split()


def test_words_whose_times_move_are_neither_lost_nor_doubled(voices: Any) -> None:
    """In the second look everything begins a quarter of a second earlier than before."""

    def moved(*looks: tuple[str, int]) -> Any:
        waiting = iter(looks)

        def transcripts(segments: Any, texts: Any) -> list[Transcript]:
            text, by = next(waiting)
            words = tuple(
                TimedText(word, 8_000 * n + by, 8_000 * (n + 1) + by, 1.0) for n, word in enumerate(text.split())
            )
            return [Transcript("", None, None, None, None, words, None)]

        return transcripts

    ear = LocalAgreement("s", None, moved(("one two", 4_000), ("one two three", 4_000), ("one two three four", 0)))
    pcm, told = np.concatenate([voices[0][0]] * 3)[: 3 * RATE], []
    for at in range(3):
        look = ear.due(pcm[at * RATE : (at + 1) * RATE], False)
        assert look is not None
        told += ear.accept(look._replace(start=0), None).final
    assert [word for word, _, _ in (*told, *ear.finish().final)] == ["one", "two", "three", "four"]


def test_a_pause_ends_what_was_said_and_silence_is_not_looked_at(voices: Any) -> None:
    ear = LocalAgreement("s", None, look_at("hello", "hello there"))
    first = ear.due(voices[0][0][: 2 * RATE], False)
    assert first is not None and not ear.accept(first, None).final
    after = ear.due(np.zeros(RATE, np.int16), False)
    assert after is not None and [word for word, _, _ in ear.accept(after, None).final] == ["hello", "there"]
    assert ear.due(np.zeros(RATE, np.int16), False) is None and ear.due(np.zeros(500, np.int16), True) is None
    assert ear.finish().final == ()


def test_whisper_streams_what_it_writes_of_the_whole(whisper: Path, voices: Any) -> None:
    listener = Listener(str(whisper), settings=ModelConfig(device="cpu"))
    pause = np.zeros(RATE, np.int16)
    pcm = np.concatenate([part for voice, _ in voices[:2] for part in (voice, pause)])
    words = accept(listener, pcm, list(range(0, len(pcm), 5_000)))
    reference = " ".join(text for _, text in voices[:2])
    assert score_pair(reference, final(words), "en")[0].rate < 0.35
    assert accept(listener, np.zeros(3 * RATE, np.int16), []) == []


# What is told, and what is refused


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_file_is_heard_word_by_word_and_a_simulation_tells_delays(
    tone_model: Path, talk: Any, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "talk.wav", talk[0][:80_000], RATE)
    model = ("--model", str(tone_model / "model" / "checkpoint"))
    done = in_process(tmp_path, "listen", "talk.wav", *model, "--simulate", "fast")
    assert done.returncode == 0, done.stderr
    words = lines(done.stdout)
    assert words and all(list(word) == ["text", "start_s", "stop_s", "is_final", "emitted_s"] for word in words)
    ends = [word for word in words if word["is_final"]]
    assert all(word["emitted_s"] >= word["stop_s"] for word in ends)
    assert "p50" in done.stderr and "of 9 words differ" in done.stderr
    plain = in_process(tmp_path, "listen", "talk.wav", *model)
    assert [(w["text"], w["start_s"]) for w in lines(plain.stdout) if w["is_final"]] == [
        (w["text"], w["start_s"]) for w in ends
    ]


def test_delays_count_what_is_computed_and_waits_do_not(tones: Listener, talk: Any) -> None:
    found = played(tones.stream(), [talk[0][:60_000]], 0.5, False, lambda words: None)
    assert found.seconds == 60_000 / RATE and len(found.delays_s) == len(found.words) == len(found.waits_s)
    assert all(delay >= wait for delay, wait in zip(found.delays_s, found.waits_s, strict=True))
    assert np.percentile(found.waits_s, 50) <= 0.5 + 0.3 + 0.1  # a chunk, and what is behind it
    assert any("revisions a word" in line for line in found.lines())


def test_telephone_pcm_without_a_header_is_heard_by_its_options(tone_model: Path, talk: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.wav", talk[0][:80_000], RATE)
    soundfile.write(tmp_path / "call.raw", talk[0][:80_000][::2], 8_000, subtype="ULAW", format="RAW")
    model = ("--model", str(tone_model / "model" / "checkpoint"))
    whole = in_process(tmp_path, "listen", "talk.wav", *model)
    raw = in_process(tmp_path, "listen", "call.raw", *model, "--raw-rate", "8000", "--raw-format", "mulaw")
    assert raw.returncode == 0, raw.stderr
    texts = [[word["text"] for word in lines(done.stdout) if word["is_final"]] for done in (whole, raw)]
    assert texts[0] and score_pair(" ".join(texts[0]), " ".join(texts[1]), None)[0].rate < 0.35


@pytest.mark.nightly
def test_a_pipe_is_heard_to_its_last_whole_sample(tone_model: Path, talk: Any) -> None:
    pcm = talk[0][:40_000]
    command = [sys.executable, "-m", "audiomill", "listen", "-", "--model", str(tone_model / "model" / "checkpoint")]
    done = subprocess.run(command, input=pcm.tobytes() + b"\x01", capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert any(word["is_final"] for word in lines(done.stdout.decode()))
    assert b"the last 1 bytes are no whole sample" in done.stderr


def test_a_header_on_standard_input_is_told(tone_model: Path, talk: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encode(talk[0][:9_000]))))
    done = in_process(tmp_path, "listen", "-", "--model", str(tone_model / "model" / "checkpoint"))
    assert done.returncode == 2 and "WAV with a header, not plain PCM" in done.stderr and "Traceback" not in done.stderr


def test_a_stream_that_breaks_off_keeps_its_words(tone_model: Path, talk: Any, tmp_path: Path) -> None:
    """A FLAC that ends in the middle: what was decoded is told, the error behind it."""
    soundfile.write(tmp_path / "talk.flac", talk[0], RATE)
    whole = (tmp_path / "talk.flac").read_bytes()
    (tmp_path / "broken.flac").write_bytes(whole[: len(whole) // 2])
    model = ("--model", str(tone_model / "model" / "checkpoint"))
    done = in_process(tmp_path, "listen", "broken.flac", *model)
    assert done.returncode == 2 and "truncated: expected" in done.stderr and "Traceback" not in done.stderr
    assert len([word for word in lines(done.stdout) if word["is_final"]]) >= 5


def test_what_cannot_be_streamed_is_told(whisper: Path, tmp_path: Path, tones: Listener) -> None:
    with pytest.raises(UsageError, match="tells no times of words"):
        Listener(str(save_moonshine(tmp_path / "moonshine")))
    with pytest.raises(UsageError, match="--left-context-seconds 0"):
        ChunksConfig(left_context_seconds=0.0)
    with pytest.raises(UsageError, match="expected 5 at most"):
        Listener(str(whisper), chunks=ChunksConfig(chunk_seconds=8.0), settings=CPU)
    with pytest.raises(UsageError, match="takes int16"):
        tones.stream().insert(np.zeros(10))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="30 s together at most"):
        ChunksConfig(chunk_seconds=25.0)
    stream = tones.stream()
    assert stream.finish() == [] and stream.finish() == []
    with pytest.raises(UsageError, match="was finished"):
        stream.insert(np.zeros(10, np.int16))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(encode(noise(16_000)))
    with pytest.raises(UsageError, match="--segment stream"):
        run(tmp_path / "in", tmp_path / "out", model=whisper, segment="stream")
    assert in_process(tmp_path, "listen", "-", "--model", str(whisper), "--simulate", "fast").returncode == 2
    gone = in_process(tmp_path, "listen", "gone.wav", "--model", str(whisper))
    assert gone.returncode == 2 and "gone.wav" in gone.stderr and "Traceback" not in gone.stderr


def test_words_that_take_no_time_were_not_said() -> None:
    spoken = [("he", 0, 3_000), ("waits", 3_000, 9_000), ("a", 9_000, 9_000), ("day", 9_000, 14_000)]
    loop = [(text, 14_000, 14_000) for text in ("he", "waits", "a", "day")]
    again = [("he", 20_000, 24_000), ("waits", 24_000, 30_000)]
    assert that_take_time(spoken) == spoken and that_take_time([]) == []
    assert that_take_time([*spoken, *loop]) == spoken
    assert that_take_time([*spoken, *loop, *again]) == [*spoken, *again]
    assert that_take_time(loop[:2]) == loop[:2], "two words may lie so near"
