"""Whisper's word times: the warp against a plain one, words whole, in order and inside, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import TimedText
from audiomill.models.seq2seq.decode_slots import DecodedTokens
from audiomill.models.seq2seq.hypothesis import DecodedChunk
from audiomill.models.seq2seq.word_time_repair import drop_repeated_chunks, ordered, repair_times
from audiomill.models.whisper.timing import heads_of, warp
from audiomill.models.whisper.words import TimedToken, words_of
from tests.support.jobs_by_hand import loaded, rows, run
from tests.support.scale import daily
from tests.support.synth import RATE, encode


def cheapest(cost: Any) -> float:
    """Cost of the best monotonic path, by the definition."""
    total = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i in range(1, total.shape[0]):
        for j in range(1, total.shape[1]):
            total[i, j] = cost[i - 1, j - 1] + min(total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
    return float(total[-1, -1])


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 12)), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=40)
def test_every_row_of_a_batch_gets_its_own_cheapest_path(sizes: list[tuple[int, int]], seed: int) -> None:
    random = np.random.default_rng(seed)
    costs = [random.normal(size=size) for size in sizes]
    padded = np.zeros((len(sizes), max(n for n, _ in sizes), max(m for _, m in sizes)))
    for row, cost in enumerate(costs):
        padded[row, : cost.shape[0], : cost.shape[1]] = cost
    paths = warp(torch.from_numpy(padded), [n for n, _ in sizes], [m for _, m in sizes])
    for cost, path in zip(costs, paths, strict=True):
        assert path[0].tolist() == [0, 0] and path[-1].tolist() == [cost.shape[0] - 1, cost.shape[1] - 1]
        steps = np.diff(path, axis=0)
        assert ((steps >= 0) & (steps <= 1)).all() and (steps.sum(1) >= 1).all()
        assert sum(cost[i, j] for i, j in path) == pytest.approx(cheapest(cost))


def test_without_given_heads_the_upper_half_tells() -> None:
    assert heads_of(None, 4, 2) == ((2, 0), (2, 1), (3, 0), (3, 1)) and heads_of([[1, 0]], 4, 2) == ((1, 0),)


@pytest.fixture(scope="module")
def spoken(voices: Any) -> list[Segment]:
    pause = np.zeros(3 * RATE, np.int16)
    pcms = [voices[0][0], voices[1][0], np.concatenate([voices[0][0], pause, voices[1][0]]), np.zeros(RATE, np.int16)]
    return [Segment(pcm, 0, 0, (str(n), None), 0, None) for n, pcm in enumerate(pcms)]


@pytest.mark.parametrize("fallback", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_words_are_whole_in_order_and_inside(whisper: Path, spoken: list[Segment], fallback: bool) -> None:
    model = loaded(whisper, transcripts=TranscriptConfig(fallback=fallback))
    answers = [model.forward([segment])[0].text for segment in spoken]
    for segment, transcript in zip(spoken, model.transcripts(spoken, answers), strict=True):
        assert [word.text for word in transcript.words] == transcript.text.split()
        edges = [edge for word in transcript.words for edge in (word.start, word.stop)]
        assert edges == sorted(edges) and all(0 <= edge <= len(segment.pcm_T) + 320 for edge in edges)
        assert all(0 < word.probability <= 1 for word in transcript.words)
    long = model.transcripts(spoken, answers)[2].words
    (fox,) = [word for word in long if "fox" in word.text.lower()]
    at = (len(spoken[0].pcm_T) + 3 * RATE) / RATE
    assert at + 0.6 < fox.start / RATE < at + 1.1, "the second sentence is where it is, three seconds on"


def test_word_times_do_not_depend_on_the_batch(whisper: Path, spoken: list[Segment]) -> None:
    model = loaded(whisper, transcripts=TranscriptConfig(fallback=False))
    spoken = spoken[: daily(3, 99)]
    together = model.transcripts(spoken, [answer.text for answer in model.forward(spoken)])
    for segment, ours in zip(spoken, together, strict=True):
        alone = model.transcripts([segment], [model.forward([segment])[0].text])[0]
        assert [(w.text, w.start, w.stop) for w in alone.words] == [(w.text, w.start, w.stop) for w in ours.words]


@pytest.mark.nightly
def test_the_table_holds_words_in_source_time_unless_turned_off(tmp_path: Path, whisper: Path, voices: Any) -> None:
    (tmp_path / "in").mkdir()
    pause = np.zeros(4 * RATE, np.int16)
    (tmp_path / "in" / "a.wav").write_bytes(encode(np.concatenate([pause, voices[1][0], pause, voices[0][0]])))
    run(tmp_path / "in", tmp_path / "out", model=whisper)
    for segment in rows(tmp_path / "out", "segments"):
        assert [word["word"] for word in segment["words"]] == segment["text"].split()
        assert all(segment["start_s"] <= w["start_s"] <= w["stop_s"] <= segment["stop_s"] for w in segment["words"])
    run(tmp_path / "in", tmp_path / "off", model=whisper, word_times=False)
    assert {row["words"] is None for row in rows(tmp_path / "off", "segments")} == {True}


def test_an_hour_on_words_are_still_where_they_are(tmp_path: Path, whisper: Path, voices: Any) -> None:
    fox = voices[1][0]
    seconds = daily(600, 3_600)
    pcm = np.random.default_rng(0).normal(0, 3, seconds * RATE).astype(np.int16)
    places = [10, seconds // 2, seconds - 5]
    for at in places:
        pcm[at * RATE : at * RATE + len(fox)] += fox
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "hour.flac").write_bytes(encode(pcm, kind="FLAC"))
    run(tmp_path / "in", tmp_path / "out", model=whisper)
    found = [s["words"] for s in rows(tmp_path / "out", "segments") if s["text"]]
    assert len(found) == len(places)
    for words, at in zip(found, places, strict=True):
        for word, first in zip(words, found[0], strict=True):
            assert abs((word["start_s"] - at) - (first["start_s"] - places[0])) < 0.15
        assert 0 < words[-1]["start_s"] - at < len(fox) / RATE and abs(words[-1]["stop_s"] - at - len(fox) / RATE) < 0.3


class Letters:
    """A tokenizer of whole texts, bytes of one character split over two tokens included."""

    texts = (" He", "llo", ",", " 42", "%", " \u4f60", "\u597d")

    def decode(self, ids: list[int]) -> str:
        raw = b"".join({7: b"\xc3", 8: b"\xa9"}.get(i) or self.texts[i].encode() for i in ids)
        return raw.decode("utf-8", "replace")

    def decode_batch(self, many: list[list[int]]) -> list[str]:
        return [self.decode(ids) for ids in many]


def test_tokens_join_to_words_with_their_punctuation_and_numbers() -> None:
    def timed(ids: list[int]) -> list[TimedToken]:
        return [TimedToken(token, 100 * n, 100 * n + 100, 0.5) for n, token in enumerate(ids)]

    found = words_of(timed([0, 1, 2, 3, 4]), Letters(), "en")
    assert [(w.text, w.start, w.stop) for w in found] == [("Hello,", 0, 300), ("42%", 300, 500)]
    assert [w.text for w in words_of(timed([5, 6]), Letters(), "zh")] == ["\u4f60", "\u597d"]
    assert [(w.text, w.stop) for w in words_of(timed([0, 7, 8, 3]), Letters(), "fr")] == [
        ("He\u00e9", 300),
        ("42", 400),
    ]


@given(
    st.lists(
        st.tuples(st.text("ab1", min_size=1, max_size=9), st.integers(-9_000, 90_000), st.integers(-9_000, 90_000)),
        max_size=12,
    ),
    st.integers(0, 80_000),
)
def test_words_are_in_order_without_overlap_inside_and_not_too_long(
    words: list[tuple[str, int, int]], length: int
) -> None:
    found = ordered([TimedText(text, start, stop, 1.0) for text, start, stop in words], length)
    assert [word.text for word in found] == [text for text, _, _ in words]
    edges = [edge for word in found for edge in (word.start, word.stop)]
    assert edges == sorted(edges) and all(0 <= edge <= length for edge in edges)
    assert all(word.stop - word.start <= RATE * (1.0 + 0.6 * len(word.text)) for word in found)


def test_a_word_does_not_last_through_the_pause_beside_it() -> None:
    sound = np.zeros(4 * RATE, np.int16)
    sound[RATE // 2 : RATE] = 8_000
    sound[3 * RATE : 3 * RATE + RATE // 2] = 8_000
    first, second = repair_times(
        [TimedText("one", 8_000, 2 * RATE, 1.0), TimedText("two", 2 * RATE, 3 * RATE + RATE // 2, 1.0)], sound
    )
    assert abs(first.stop - RATE) <= RATE // 10 and abs(second.start - 3 * RATE) <= RATE // 10
    assert first.start == 8_000 and second.stop == 3 * RATE + RATE // 2


def stretch(start: int, *tokens: tuple[int, int, int]) -> DecodedChunk:
    """Of text tokens with their times, a timestamp around them."""
    ids = [900, *(token for token, _, _ in tokens), 901]
    decoded = DecodedTokens(ids, [-0.1] * len(ids), -1.0, len(ids), 0.0, True)
    return DecodedChunk(start, decoded, tuple(TimedToken(token, a, b, 1.0) for token, a, b in tokens))


def test_a_pass_does_not_say_again_what_the_one_before_it_said_at_the_same_time() -> None:
    before = stretch(0, (1, 0, 9_000), (2, 9_000, 16_000), (3, 16_000, 24_000))
    again = stretch(12_000, (2, 12_000, 16_000), (3, 16_000, 24_000), (4, 24_000, 30_000))
    kept, cut = drop_repeated_chunks([before, again], 800)
    assert kept == before and cut.decoded.tokens == [900, 4, 901] and [t.token for t in cut.timed or ()] == [4]
    later = stretch(40_000, (2, 40_000, 42_000), (3, 42_000, 45_000))
    assert drop_repeated_chunks([before, later], 800)[1] == later, "said once more, later"
    assert drop_repeated_chunks([], 800) == ()
