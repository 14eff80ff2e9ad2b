"""Speech that Whisper's text says nothing of is decoded alone and put where it was said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.models.seq2seq.hypothesis import Hypothesis
from tests.support.jobs_by_hand import loaded

RATE = 16_000
PAUSE = np.zeros(RATE // 2, np.int16)


@pytest.fixture(scope="module")
def model(whisper: Path) -> Any:
    return loaded(whisper, transcripts=TranscriptConfig())


def said(pcm: Any) -> Segment:
    return Segment(pcm, 0, 0, ("r", None), 0, None, speech=len(pcm))


def only(model: Any, pcm: Any, whole: Any, behind: bool) -> tuple[Segment, Hypothesis]:
    """What a decoder would have that hears all of `whole` and writes down one part of it, before or behind the other."""
    (answer,) = model.forward([said(pcm)])
    (stretch,), shift = answer.text.chunks, len(whole) - len(pcm) if behind else 0
    timed = [token._replace(start=token.start + shift, stop=token.stop + shift) for token in stretch.timed]
    timed[0] = timed[0]._replace(start=0)  # the first word takes what nobody wrote
    return said(whole), answer.text._replace(chunks=(stretch._replace(timed=tuple(timed)),))


def reread(model: Any, segment: Segment, heard: Hypothesis) -> tuple[list[Any], Hypothesis]:
    parts = model.find_deletions(0, segment, heard)
    if not parts:
        return [], heard
    texts = [prediction.text for prediction in model.forward([part.segment for part in parts])]
    return parts, model.fill_deletions(heard, list(zip(parts, texts, strict=True)))


@pytest.mark.parametrize("behind", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_a_sentence_that_was_left_out_is_put_where_it_was_said(
    model: Any, voices: list[tuple[Any, str]], behind: bool
) -> None:
    second = voices[1][0]
    first = (second // 3).astype(np.int16)
    whole = np.concatenate([first, PAUSE, second])
    segment, heard = only(model, second if behind else first, whole, behind)
    (short,) = model.transcripts([segment], [heard])
    parts, filled = reread(model, segment, heard)
    assert len(parts) >= 2 and sum(len(part.segment.pcm_T) for part in parts) == len(whole)
    (text,) = model.transcripts([segment], [filled])
    alone = [model.transcripts([said(pcm)], [model.forward([said(pcm)])[0].text])[0].text for pcm in (first, second)]
    assert len(text.text.split()) > len(short.text.split())
    assert text.text.split()[:3] == alone[0].split()[:3] and text.text.split()[-2:] == alone[1].split()[-2:]
    starts = [word.start for word in text.words]
    assert starts == sorted(starts) and starts[-1] < len(whole)
    at = len(alone[0].split())
    assert abs(starts[at] - len(first) - len(PAUSE)) < RATE // 2, "the second sentence begins behind the pause"
    assert [phrase.text for phrase in text.phrases] and text.phrases[-1].stop <= len(whole)


def test_a_text_that_is_whole_is_left_alone(model: Any, voices: list[tuple[Any, str]]) -> None:
    whole = np.concatenate([voices[0][0], PAUSE, voices[1][0]])
    random = np.random.default_rng(0)
    noisy = np.concatenate([voices[0][0], (random.normal(size=2 * RATE) * 300).astype(np.int16), voices[1][0]])
    for pcm in (whole, noisy, voices[0][0], PAUSE):
        (answer,) = model.forward([said(pcm)])
        _, filled = reread(model, said(pcm), answer.text)
        assert filled.tokens == answer.text.tokens
