"""CTC collapse on sequences whose text is known by construction."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiomill.audio.cutting.segment import Segment
from audiomill.models.ctc.greedy_decoding import CtcVocabulary, FrameLabels, transcripts
from audiomill.models.ctc.vocabulary import ctc_vocabulary

VOCABULARY = CtcVocabulary(("-", "|", "a", "b", "c"), blank=0, delimiter="|")
HOP = 320


def labels(text: str) -> FrameLabels:
    ids = np.array([VOCABULARY.tokens.index(c) for c in text], np.int32)
    return FrameLabels(ids, np.full(len(ids), -0.1, np.float32))


def whole(num_frames: int) -> Segment:
    return Segment(np.zeros(num_frames * HOP, np.int16), 0, 0, ("r", None), 0, None)


def read(text: str) -> list[str]:
    return [t.text for t in transcripts([whole(len(text))], [labels(text)], VOCABULARY, HOP, None)]


def test_repeats_collapse_and_blanks_keep_double_letters() -> None:
    assert read("aa-ab||b-bc-") == ["aab bbc"]


def test_silence_is_empty_and_has_no_probability() -> None:
    (transcript,) = transcripts([whole(4)], [labels("----")], VOCABULARY, HOP, None)
    assert transcript.text == "" and transcript.avg_logprob is None and transcript.words == ()


def test_words_carry_the_samples_of_their_frames() -> None:
    (transcript,) = transcripts([whole(8)], [labels("-aa|-bc-")], VOCABULARY, HOP, None)
    assert [(w.text, w.start, w.stop) for w in transcript.words or ()] == [("aa"[0], 320, 960), ("bc", 1600, 2240)]


@given(st.text("-|abc", min_size=20, max_size=120), st.integers(4, 12), st.integers(1, 4))
def test_windows_give_the_words_of_the_whole_once_each(text: str, core: int, context: int) -> None:
    """Law: no word is doubled or cut, wherever the seams fall."""
    windows, frames = [], []
    for start in range(0, len(text), core):
        stop = min(start + core, len(text))
        left, right = min(context, start), min(context, len(text) - stop)
        pcm = np.zeros((stop + right - start + left) * HOP, np.int16)
        windows.append(Segment(pcm, left * HOP, right * HOP, ("r", None), start * HOP, None))
        frames.append(labels(text[start - left : stop + right]))
    parts = [t.text for t in transcripts(windows, frames, VOCABULARY, HOP, None)]
    assert " ".join(p for p in parts if p) == read(text)[0]


def test_tracks_are_read_apart() -> None:
    one = Segment(np.zeros(4 * HOP, np.int16), 0, 0, ("r", 0), 0, None)
    two = Segment(np.zeros(4 * HOP, np.int16), 0, 0, ("r", 1), 0, None)
    assert [t.text for t in transcripts([one, two], [labels("aab-"), labels("cc|a")], VOCABULARY, HOP, None)] == [
        "ab",
        "c a",
    ]


def test_unspaced_scripts_are_shared_out_by_token() -> None:
    text = "abc-" * 60  # 4.8 s without delimiter
    windows = [
        Segment(np.zeros(160 * HOP, np.int16), 0, 40 * HOP, ("r", None), 0, None),
        Segment(np.zeros(160 * HOP, np.int16), 40 * HOP, 0, ("r", None), 120 * HOP, None),
    ]
    parts = [t.text for t in transcripts(windows, [labels(text[:160]), labels(text[80:])], VOCABULARY, HOP, None)]
    assert parts == ["abc" * 30, "abc" * 30]


@pytest.mark.parametrize(
    ("told", "tokens"), [(" ", (" ",)), ("|", (" ",)), (None, (" ",)), ("|", ("|",)), ("|", ("|", " "))]
)
def test_words_end_at_the_blank_that_a_vocabulary_has(told: str | None, tokens: tuple[str, ...]) -> None:
    names = ("-", "a", "b", *tokens)
    tokenizer = SimpleNamespace(
        get_vocab=lambda: {token: at for at, token in enumerate(names)},
        pad_token_id=0, all_special_ids=[0], word_delimiter_token=told,
    )  # fmt: skip
    vocabulary = ctc_vocabulary(tokenizer, None, None)
    labels = np.array([1, 2, 3, 0, 2, len(names) - 1, 1], np.int32)
    frames = FrameLabels(labels, np.zeros(len(labels), np.float32))
    segment = Segment(np.zeros(320 * len(labels), np.int16), 0, 0, ("r", None), 0, None)
    (found,) = transcripts([segment], [frames], vocabulary, 320, None)
    assert found.text == "ab b a" and [word.text for word in found.words or ()] == ["ab", "b", "a"]
