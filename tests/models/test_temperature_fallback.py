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
from audiomill.config.text import TranscriptConfig
from audiomill.errors import UsageError
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.quality_checks import (
    DecodingMetrics,
    failed_checks,
    is_better,
    is_not_worth_retrying,
    is_silence,
    is_unsure,
)
from audiomill.models.seq2seq.repetition_detector import RepetitionDetector, Sampler
from audiomill.models.seq2seq.temperature_fallback import decode_with_fallback
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
        temperature_fallback=False,
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
    assert [is_not_worth_retrying(unlikely, failed, level) for level in (1, 2, 4)] == [
        False,
        True,
        True,
    ]
    assert is_not_worth_retrying(unlikely._replace(avg_logprob=-1.4), failed, 1)
    assert not any(
        is_not_worth_retrying(looped, failed_checks(looped, TEXT), fallback_level) for fallback_level in (1, 2, 4)
    )


def test_an_unsure_text_is_looked_at_once_more_and_gives_way_to_a_surer_one_alone() -> None:
    unsure = GOOD._replace(avg_logprob=-0.7)
    assert [is_unsure(unsure, fallback_level) for fallback_level in (1, 2)] == [True, False] and not is_unsure(GOOD, 1)
    found = [is_better(unsure._replace(avg_logprob=logprob), unsure, TEXT) for logprob in (-0.7, -0.66, -0.6)]
    assert found == [False, False, True]
    bad = unsure._replace(avg_logprob=-1.1)
    assert is_better(bad._replace(avg_logprob=-1.09), bad, TEXT)  # between two that fail the likelier is kept
    assert not is_better(GOOD._replace(num_repeats=5), unsure, TEXT)


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


def sampler(temperature: float, *seeds: int) -> Sampler:
    found = Sampler(temperature)
    found.open(seeds)
    return found


def test_a_sampled_row_does_not_depend_on_its_neighbours() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    together, one, all_rows = sampler(0.8, 1, 2, 3), slice(0, 1), slice(0, 3)
    alone = [sampler(0.8, seed) for seed in (1, 2, 3)]
    for _ in range(20):
        expected = [int(each.choose(logits[row : row + 1], one)[0]) for row, each in enumerate(alone)]
        assert together.choose(logits, all_rows).tolist() == expected
    draws = [int(sampler(1.0, seed).choose(logits[:1], one)[0]) for seed in range(2_000)]
    share = np.bincount(draws, minlength=50) / len(draws)
    assert np.abs(share - logits[0].softmax(-1).numpy()).max() < 0.04, "draws follow the softmax"
    assert sampler(1e-4, 5, 6, 7).choose(logits, all_rows).tolist() == logits.argmax(-1).tolist()


@pytest.fixture(scope="module")
def clips(voices: Any) -> list[Segment]:
    pause = np.zeros(4_000, np.int16)
    pair = np.concatenate([voices[0][0], pause, voices[1][0]])
    pcms = [voices[0][0], voices[1][0], pair, noise(30_000)]
    return [Segment(pcm, 0, 0, (str(n), None), 0, None) for n, pcm in enumerate(pcms)]


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(is_short_context=True, stops_repetition=True),
        pytest.param(
            DecodingOptions(fallback_level=3, temperature=0.8, stops_repetition=True), marks=pytest.mark.nightly
        ),
        pytest.param(DecodingOptions(fallback_level=4, num_beams=3), marks=pytest.mark.nightly),
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


def test_a_short_context_is_a_function_of_the_segment(whisper: Path) -> None:
    model = loaded(whisper)
    lengths = [model.padded_length(n) / RATE for n in (400, 9 * RATE, 9 * RATE + 1, 13 * RATE, 28 * RATE, 30 * RATE)]
    assert lengths == sorted(lengths) and lengths[-1] == 30 and lengths[0] < 30
    assert all(n <= model.padded_length(n) for n in range(400, 30 * RATE, 7_777))
    full = loaded(whisper, transcripts=TranscriptConfig(temperature_fallback=False))
    assert {full.padded_length(n) for n in (400, 9 * RATE)} == {30 * RATE}


def test_a_second_model_is_the_last_fallback_level(whisper: Path, clips: list[Segment], wav2vec2_folder: Path) -> None:
    text = TranscriptConfig(
        second_pass_model=str(whisper), min_avg_logprob=0.0, max_no_speech_prob=1.0, max_new_tokens=16
    )
    model = loaded(whisper, transcripts=text)
    levels = model.fallback.levels
    assert len(levels) == 5 and len(loaded(whisper).fallback.levels) == 4
    again = levels[-1].model.decode(clips[:2], levels[-1].options)
    assert [each.tokens for each in again] == [each.tokens for each in model.decode(clips[:2])]
    assert {each.fallback_level for each in again} == {5}
    tried: list[tuple[int, int]] = []

    def decode_all(batch: Sequence[Segment], by: Any, options: DecodingOptions) -> list[Hypothesis | None]:
        tried.append((options.fallback_level, len(batch)))
        return [None] * len(batch) if options.fallback_level == 4 else list(by.decode(batch, options))

    decode_with_fallback(clips[:2], again, model.fallback, decode_all)
    assert tried[-1] == (5, 2), "two levels may agree: the second model is still asked"


def test_a_second_model_that_cannot_be_asked_is_said_at_once(
    tmp_path: Path, whisper: Path, wav2vec2_folder: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(encode(noise(RATE)))
    with pytest.raises(UsageError, match="expected a Whisper behind a Whisper"):
        run(tmp_path / "in", tmp_path / "out", model=whisper, second_pass_model=wav2vec2_folder)
    with pytest.raises(UsageError, match="without --no-temperature-fallback"):
        run(tmp_path / "in", tmp_path / "out", model=whisper, second_pass_model=whisper, temperature_fallback=False)


def test_a_text_that_no_attempt_got_past_its_checks_is_doubtful_however_sure_its_words_are() -> None:
    assert segment_confidence([0.98, 0.98], 0.1) == pytest.approx(0.98)
    assert segment_confidence([0.98, 0.98], 0.1, has_failed=True) == DOUBTFUL < 0.5
    assert segment_confidence([0.1], 0.1, has_failed=True) == pytest.approx(0.1)
    assert segment_confidence([], 0.9, has_failed=True) == 0.9, "nobody speaks"
