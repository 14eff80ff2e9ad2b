"""Whisper left alone: no words from nothing, loops stopped, doubtful texts tried again, and neighbours without a say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import SearchConfig, TranscriptConfig
from audiomill.errors import UsageError
from audiomill.models.seq2seq.decode_slots import DecodedTokens
from audiomill.models.seq2seq.decoding_fallback import decode_with_fallback
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.quality_checks import (
    DecodingMetrics,
    failed_checks,
    is_better,
    is_not_worth_retrying,
    is_silence,
)
from audiomill.models.seq2seq.repetition_detector import RepetitionDetector
from audiomill.models.whisper.words import DOUBTFUL, segment_confidence
from audiomill.text.repetition import num_repeats
from tests.models.test_whisper import hf_tokens
from tests.support.jobs_by_hand import check_accounts, loaded, rows, run
from tests.support.scale import daily
from tests.support.synth import RATE, encode, noise, nothing_said

TEXT = TranscriptConfig()
GOOD = DecodingMetrics(-0.3, 0.01, 1.2, 1, 12.0, True, 0.0, None)


@pytest.mark.parametrize(
    "segment", ["vad", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("fixed", "none"))]
)
def test_not_one_word_is_made_of_nothing(tmp_path: Path, whisper: Path, segment: str) -> None:
    (tmp_path / "in").mkdir()
    for seconds, seed in ((0.4, 0), (31.5, 2)) if segment != "vad" else ((1.9, 2), (8.0, 5), (65.0, 3)):
        for name, pcm in nothing_said(seconds, seed).items():
            (tmp_path / "in" / f"{name}-{seconds}.wav").write_bytes(encode(pcm))
    run(tmp_path / "in", tmp_path / "out", model=whisper, segment=segment)
    check_accounts(tmp_path / "out")
    said = {Path(row["source"]).name: row["text"] for row in rows(tmp_path / "out", "recordings") if row["text"]}
    assert said == {}
    if segment != "vad":
        failed_checks = [row["failed_checks"] for row in rows(tmp_path / "out", "segments")]
        assert len(failed_checks) >= 24 and sum(each == ["silence"] for each in failed_checks) > 20


@pytest.mark.parametrize("segment", ["vad", pytest.param("fixed", marks=pytest.mark.nightly)])
def test_no_speech_is_lost_because_of_it(tmp_path: Path, whisper: Path, voices: Any, segment: str) -> None:
    (tmp_path / "in").mkdir()
    pause = np.zeros(RATE, np.int16)
    for number, (pcm, _) in enumerate(voices):
        loud = np.concatenate([pause, pcm, pause])
        faint = (loud / 30).astype(np.int16)
        noisy = (loud + np.random.default_rng(number).normal(0, 60, len(loud))).astype(np.int16)
        for name, each in (("loud", loud), ("faint", faint), ("noisy", noisy)):
            (tmp_path / "in" / f"{name}-{number}.wav").write_bytes(encode(each))
    run(tmp_path / "in", tmp_path / "out", model=whisper, segment=segment)
    for row in rows(tmp_path / "out", "recordings"):
        assert ("world" if row["source"].endswith("0.wav") else "lazy dog") in row["text"].lower()


@pytest.mark.nightly  # daily: what the first attempt wrote is kept, in tests/report/test_report.py
def test_doubtful_texts_climb_and_keep_the_best(tmp_path: Path, whisper: Path, voices: Any) -> None:
    (tmp_path / "in").mkdir()
    for level in (3_500,):
        pcm = voices[1][0] + np.random.default_rng(level).normal(0, level, len(voices[1][0]))
        (tmp_path / "in" / f"{level:05d}.wav").write_bytes(encode(np.clip(pcm, -32768, 32767).astype(np.int16)))
    strict: dict[str, Any] = {
        "model": whisper,
        "segment": "fixed",
        "vad_threshold": 0.01,
        "max_compression_ratio": 0.5,
        "max_new_tokens": 12,
    }
    run(tmp_path / "in", tmp_path / "out", **strict)
    run(
        tmp_path / "in",
        tmp_path / "plain",
        model=whisper,
        segment="fixed",
        fallback=False,
        max_new_tokens=12,
    )
    kept, plain = rows(tmp_path / "out", "segments"), rows(tmp_path / "plain", "segments")
    assert {row["fallback_level"] for row in plain} == {0} and {row["failed_checks"] is None for row in plain} == {True}
    assert max(row["fallback_level"] for row in kept) > 0
    for row, before in zip(kept, plain, strict=True):
        assert row["failed_checks"] == [] or row["fallback_level"] or row["avg_logprob"] >= before["avg_logprob"] - 0.5
    run(tmp_path / "in", tmp_path / "drop", low_confidence="drop", **strict)
    for row, other in zip(rows(tmp_path / "drop", "segments"), kept, strict=True):
        assert row["failed_checks"] == other["failed_checks"] and row["text"] == (
            "" if other["failed_checks"] else other["text"]
        )


def test_every_gate_has_a_text_that_fails_it_and_only_it() -> None:
    assert failed_checks(GOOD, TEXT) == () and not is_silence(GOOD, TEXT)
    bad = {
        "avg_logprob": GOOD._replace(avg_logprob=-1.1),
        "compression_ratio": GOOD._replace(compression_ratio=2.5, chars_per_second=30.0),
        "repeated": GOOD._replace(num_repeats=5, chars_per_second=30.0),
        "too_fast": GOOD._replace(chars_per_second=41.0),
        "unfinished": GOOD._replace(is_finished=False),
        "past_the_end": GOOD._replace(overrun_s=1.5),
    }
    assert {name: failed_checks(metrics, TEXT) for name, metrics in bad.items()} == {name: (name,) for name in bad}
    said_again = GOOD._replace(compression_ratio=4.0, num_repeats=6, chars_per_second=10.0)
    assert failed_checks(said_again, TEXT) == (), "as long as somebody speaks: it is said again and again"
    assert failed_checks(said_again._replace(chars_per_second=1.0), TEXT) == ("compression_ratio", "repeated")
    assert "repeated" in failed_checks(said_again._replace(is_finished=False), TEXT)
    assert is_silence(GOOD._replace(no_speech_prob=0.7, avg_logprob=-1.1), TEXT)
    assert is_silence(GOOD._replace(no_speech_prob=0.8, avg_logprob=-0.9), TEXT)
    assert is_silence(GOOD._replace(speech_s=0.0), TEXT) and not is_silence(GOOD._replace(speech_s=0.4), TEXT)


def test_what_is_merely_unlikely_is_given_up_and_what_looped_is_tried_on() -> None:
    unlikely, looped = GOOD._replace(avg_logprob=-1.1), GOOD._replace(avg_logprob=-1.4, num_repeats=9)
    failed = failed_checks(unlikely, TEXT)
    assert not is_not_worth_retrying(unlikely, failed)
    assert is_not_worth_retrying(unlikely._replace(avg_logprob=-1.4), failed)
    assert not is_not_worth_retrying(looped, failed_checks(looped, TEXT))


def test_of_two_texts_the_one_that_fails_fewer_checks_stays_and_of_as_many_the_likelier() -> None:
    bad = GOOD._replace(avg_logprob=-1.1)
    assert is_better(bad._replace(avg_logprob=-1.09), bad, TEXT) and not is_better(bad, bad, TEXT)
    assert is_better(GOOD, bad, TEXT) and not is_better(GOOD._replace(num_repeats=5), GOOD, TEXT)


@given(st.lists(st.sampled_from("ab"), max_size=5), st.integers(1, 8), st.integers(1, 9))
def test_repeats_are_counted_whatever_stands_around_them(before: list[str], size: int, times: int) -> None:
    phrase = [f"w{n}" for n in range(size)]
    found = num_repeats([*before, *phrase * times, "end"])
    inside = max((num_repeats(before), 1))
    assert found == max(times, inside)


@given(st.integers(1, 16), st.integers(0, 6), st.integers(0, 40))
def test_loops_are_noticed_after_three_more_rounds_and_not_before(period: int, lead: int, stamp: int) -> None:
    watch = RepetitionDetector(2, 1_000, torch.device("cpu"))
    loop = list(range(100, 100 + period))
    tokens = [*range(50, 50 + lead), *loop * 12]
    noticed = None
    for step, token in enumerate(tokens):
        other = 500 + step  # a row that never repeats
        looping = watch.advance(torch.tensor([token, other]), slice(0, 2))
        assert not looping[1]
        if looping[0]:
            noticed = step + 1
            break
    assert noticed == lead + period + max(3 * period, 8)


def test_timestamps_do_not_hide_a_loop() -> None:
    watch, found = RepetitionDetector(1, 1_000, torch.device("cpu")), []
    for step in range(40):
        found.append(bool(watch.advance(torch.tensor([1_000 + step if step % 4 == 0 else step % 4]), slice(0, 1))[0]))
    assert any(found)


@pytest.fixture(scope="module")
def clips(voices: Any) -> list[Segment]:
    pause = np.zeros(4_000, np.int16)
    pair = np.concatenate([voices[0][0], pause, voices[1][0]])
    pcms = [voices[0][0], voices[1][0], pair, noise(30_000)]
    return [Segment(pcm, 0, 0, (str(n), None), 0, None) for n, pcm in enumerate(pcms)]


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(context="short", stops_repetition=True),
        pytest.param(DecodingOptions(num_beams=3), marks=pytest.mark.nightly),
    ],
)
def test_every_way_of_decoding_gives_each_row_what_it_gets_alone(
    whisper: Path, clips: list[Segment], options: DecodingOptions
) -> None:
    model = loaded(whisper, transcripts=TranscriptConfig(max_new_tokens=daily(16, 224)))
    clips = daily([clips[0], clips[1], clips[3]], clips)
    together = [heard.tokens for heard in model.decode(clips, options)]
    assert [model.decode([clip], options)[0].tokens for clip in clips] == together


@pytest.mark.parametrize("timestamps", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_beam_search_equals_hugging_face(whisper: Path, clips: list[Segment], timestamps: bool) -> None:
    clips, most = clips[: daily(2, 3)], daily(16, 40)
    model = loaded(whisper, transcripts=TranscriptConfig(timestamps=timestamps, max_new_tokens=most))
    for clip, heard in zip(clips, model.decode(clips, DecodingOptions(num_beams=3)), strict=True):
        expected = hf_tokens(model, clip.pcm_T, timestamps, num_beams=3, max_new_tokens=most)
        assert heard.chunks[0].decoded.tokens == expected[: len(heard.chunks[0].decoded.tokens)]
        assert [t for t in heard.tokens if t < model._tokens.end] == [t for t in expected if t < model._tokens.end]


def test_a_run_with_beams_searches_in_the_first_pass_and_in_the_fallback(whisper: Path, clips: list[Segment]) -> None:
    search = {"max_new_tokens": 16, "encoder_context": "window", "decoder": SearchConfig(beam_size=3)}
    model = loaded(whisper, transcripts=TranscriptConfig(**search))
    expected = model.decode(clips[:1], DecodingOptions(num_beams=3))[0].tokens
    assert model.forward(clips[:1])[0].text.tokens == expected
    assert [level.options.num_beams for level in model.fallback.levels] == [3]


def test_a_context_is_a_function_of_the_segment_and_longer_in_the_fallback(whisper: Path) -> None:
    model = loaded(whisper)
    lengths = [model.padded_length(n) / RATE for n in (400, 9 * RATE, 9 * RATE + 1, 13 * RATE, 28 * RATE, 30 * RATE)]
    assert lengths == sorted(lengths) and lengths[-1] == 30 and lengths[0] < 30
    assert all(n <= model.padded_length(n) for n in range(400, 30 * RATE, 7_777))
    again = model.fallback.levels[0].options
    contexts = [model.context(n, again) / RATE for n in (400, 9 * RATE, 13 * RATE, 28 * RATE)]
    assert (
        all(longer > short for longer, short in zip(contexts[:3], lengths, strict=False))
        and contexts[0] < 30 == contexts[-1]
    )
    full = loaded(whisper, transcripts=TranscriptConfig(fallback=False))
    assert {full.padded_length(n) for n in (400, 9 * RATE)} == {30 * RATE}


def test_a_loop_that_is_taken_for_silence_is_decoded_again_and_a_loop_without_speech_is_not(
    whisper: Path, clips: list[Segment]
) -> None:
    """openai/whisper#2795: the loop itself makes the log-probability low."""
    model, tried = loaded(whisper), []

    def decode_all(batch: Sequence[Segment], by: Any, options: DecodingOptions) -> list[Hypothesis | None]:
        tried.extend(batch)
        return list(by.decode(batch, options))

    segments = [clips[0]._replace(speech=2 * RATE), clips[1]._replace(speech=0)]
    looping = [_looping(prediction.text) for prediction in model.forward(segments)]
    spoken, silent = decode_with_fallback(segments, looping, model.fallback, decode_all)
    assert tried == segments[:1] and spoken.fallback_level == 1 and spoken.failed_checks == ()
    assert silent.failed_checks == ("silence",) and not silent.tokens


def _looping(hypothesis: Hypothesis) -> Hypothesis:
    """The text again and again, unlikely, where the model says that nobody speaks."""
    (chunk,) = hypothesis.chunks
    tokens = [token for token in chunk.decoded.tokens if token < 50_000] * 10
    logprobs = [-1.3] * len(tokens)
    decoded = DecodedTokens(tokens, logprobs, sum(logprobs), len(tokens), 0.9, False)
    return hypothesis._replace(chunks=(chunk._replace(decoded=decoded, timed=()),))


def test_a_second_model_is_the_last_fallback_level(whisper: Path, clips: list[Segment], wav2vec2_folder: Path) -> None:
    text = TranscriptConfig(
        second_pass_model=str(whisper), min_avg_logprob=0.0, max_no_speech_prob=1.0, max_new_tokens=16
    )
    model = loaded(whisper, transcripts=text)
    levels = model.fallback.levels
    assert len(levels) == 2 and len(loaded(whisper).fallback.levels) == 1
    again = levels[-1].model.decode(clips[:2], levels[-1].options)
    assert [each.tokens for each in again] == [each.tokens for each in model.decode(clips[:2])]
    assert {each.fallback_level for each in again} == {5}
    tried: list[tuple[int, int]] = []

    def decode_all(batch: Sequence[Segment], by: Any, options: DecodingOptions) -> list[Hypothesis | None]:
        tried.append((options.fallback_level, len(batch)))
        return list(by.decode(batch, options))

    decode_with_fallback(clips[:2], again, model.fallback, decode_all)
    assert tried[-1] == (5, 2), "whatever the first model says, the second one is asked"


def test_a_second_model_that_cannot_be_asked_is_said_at_once(
    tmp_path: Path, whisper: Path, wav2vec2_folder: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(encode(noise(RATE)))
    with pytest.raises(UsageError, match="expected a Whisper behind a Whisper"):
        run(tmp_path / "in", tmp_path / "out", model=whisper, second_pass_model=wav2vec2_folder)
    with pytest.raises(UsageError, match="without --no-fallback"):
        run(tmp_path / "in", tmp_path / "out", model=whisper, second_pass_model=whisper, fallback=False)


def test_a_text_that_no_attempt_got_past_its_checks_is_doubtful_however_sure_its_words_are() -> None:
    assert segment_confidence([0.98, 0.98], 0.1) == pytest.approx(0.98)
    assert segment_confidence([0.98, 0.98], 0.1, has_failed=True) == DOUBTFUL < 0.5
    assert segment_confidence([0.1], 0.1, has_failed=True) == pytest.approx(0.1)
    assert segment_confidence([], 0.9, has_failed=True) == 0.9, "nobody speaks"
