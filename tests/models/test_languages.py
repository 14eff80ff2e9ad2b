"""The language of a segment: smoothed along its recording, and heard again where that changes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audiomill.audio.cutting.segment import Segment
from audiomill.config.text import TranscriptConfig
from audiomill.models.seq2seq.autoregressive import FallbackPolicy
from audiomill.models.seq2seq.decoding_fallback import agreed_languages, decode_with_fallback, smooth_languages
from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis
from audiomill.models.seq2seq.quality_checks import DecodingMetrics

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


class Decoder:
    """Is sure of every text."""

    def context(self, num_samples: int, options: DecodingOptions) -> int:
        return num_samples

    def metrics(self, segments: Sequence[Segment], hypotheses: Sequence[Hypothesis]) -> list[DecodingMetrics]:
        return [DecodingMetrics(-0.1, 0.0, 1.2, 1, 12.0, True, 0.0, None)] * len(hypotheses)


def test_each_recording_agrees_on_its_own_and_what_changes_is_decoded_again() -> None:
    pcm = np.zeros(400, np.int16)
    segments = [Segment(pcm, 0, 0, (track, None), start) for track in "ab" for start in (900, 0, 500)]
    detected = [SURE_EN, SURE_EN, DOUBT, SURE_DE, SURE_DE, DOUBT]
    hypotheses = [Hypothesis((), max(p, key=p.__getitem__), max(p.values()), languages=p) for p in detected]
    assert [each.language for each in agreed_languages(segments, hypotheses)] == ["en"] * 3 + ["de"] * 3
    again: list[Segment] = []

    def decode_all(batch: Sequence[Segment], model: Any, options: DecodingOptions) -> list[Hypothesis | None]:
        again.extend(batch)
        return [Hypothesis((), segment.language, None) for segment in batch]

    policy = FallbackPolicy(model=Decoder(), first=DecodingOptions(), checks=TranscriptConfig())  # type: ignore[arg-type]
    results = decode_with_fallback(segments, hypotheses, policy, decode_all)
    assert [(each.track[0], each.start, each.language) for each in again] == [("a", 500, "en")]
    assert [each.language for each in results] == ["en"] * 3 + ["de"] * 3
    assert results[2].language_probability == 0.3 and results[2].languages == DOUBT
    given_ = [Hypothesis((), "fr", None)]
    again.clear()
    assert decode_with_fallback(segments[:1], given_, policy, decode_all)[0].language == "fr" and not again
