"""The language of a segment: smoothed along its recording, and heard again where that changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audiomill.models.base import Prediction, Utterance
from audiomill.models.seq2seq.hypothesis import Hypothesis
from audiomill.models.seq2seq.language_smoothing import smooth_languages
from audiomill.models.seq2seq.temperature_fallback import TemperatureFallback
from tests.support.jobs_by_hand import loaded

SURE_EN, SURE_DE, DOUBT = {"en": 0.98, "de": 0.01}, {"en": 0.0005, "de": 0.999}, {"en": 0.3, "de": 0.6}


def test_one_doubtful_segment_does_not_switch_but_sure_ones_do() -> None:
    assert smooth_languages([SURE_EN, DOUBT, SURE_EN]) == ["en"] * 3
    assert smooth_languages([DOUBT]) == ["de"]
    assert smooth_languages([SURE_EN, SURE_DE, SURE_EN]) == ["en", "de", "en"]
    assert smooth_languages([SURE_EN, SURE_EN, DOUBT, SURE_DE, SURE_DE]) == ["en", "en", "de", "de", "de"]


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=7))
def test_the_sequence_is_the_most_probable_of_all(shares: list[float]) -> None:
    from itertools import pairwise, product

    def score(codes: tuple[str, ...]) -> float:
        emitted = sum(np.log(p if code == "en" else 1 - p) for p, code in zip(shares, codes, strict=True))
        switches = sum(a != b for a, b in pairwise(codes))
        return float(emitted + switches * np.log(0.05) + (len(codes) - 1 - switches) * np.log(0.95))

    found = smooth_languages([{"en": p, "de": 1 - p} for p in shares])
    assert score(tuple(found)) >= max(score(codes) for codes in product(["en", "de"], repeat=len(shares))) - 1e-9


def test_each_recording_agrees_on_its_own(whisper: Path) -> None:
    fallback: Any = loaded(whisper).fallback
    assert isinstance(fallback, TemperatureFallback)
    pcm = np.zeros(400, np.int16)
    utterances = [Utterance(pcm, 0, 0, (track, None), start, None) for track in "ab" for start in (900, 0, 500)]
    heard = [SURE_EN, SURE_EN, DOUBT, SURE_DE, SURE_DE, DOUBT]
    answers = [Prediction(Hypothesis((), max(p, key=p.__getitem__), max(p.values()), languages=p)) for p in heard]
    told = fallback.smooth_language_id(utterances, answers)
    assert [each.language for each in told] == ["en"] * 3 + ["de"] * 3
    assert [fallback.needs_redecoding(u, a) for u, a in zip(told, answers, strict=True)] == [False, False, True] + [
        False
    ] * 3
    again = fallback.replace_text(answers[2], Prediction(Hypothesis((), "en", None)))
    assert again.text.language_probability == 0.3 and again.text.languages == DOUBT
    given_ = [Prediction(Hypothesis((), "fr", None))]
    assert fallback.smooth_language_id(utterances[:1], given_) == utterances[:1] and not fallback.needs_redecoding(
        utterances[0], given_[0]
    )
