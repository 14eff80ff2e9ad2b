"""Cutting rules: bounds, order, nothing lost, and the same answer however the stream arrives."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiomill.audio.cutting.segmenter import ContextWindows, QuietWindows, SegmentSpec, SpeechSpans
from audiomill.audio.cutting.stream_chunks import Span
from audiomill.audio.vad import FRAME_SAMPLES
from tests.support.synth import cutting

SPEC = cutting("vad", max_length_s=6, max_gap_s=1.0)
WINDOWS = cutting("fixed", max_length_s=6, context_s=1, max_gap_s=1.0)


def spans(probabilities: Any, num_samples: int | None = None, sizes: list[int] | None = None) -> list[Span]:
    cutter = SpeechSpans(SPEC)
    found: list[Span] = []
    array, at = np.asarray(probabilities, np.float32), 0
    for size in sizes or [len(array)]:
        found += cutter.push(array[at : at + size])
        at += size
    found += cutter.push(array[at:])
    return found + cutter.finish(len(array) * FRAME_SAMPLES if num_samples is None else num_samples)


bursts = st.lists(
    st.tuples(st.integers(1, 120), st.sampled_from([0.02, 0.3, 0.4, 0.6, 0.95])), min_size=1, max_size=25
).map(lambda runs: np.repeat([p for _, p in runs], [n for n, _ in runs]))


@given(bursts, st.lists(st.integers(1, 400), max_size=8))
@settings(max_examples=150, deadline=None)
def test_spans_are_ordered_bounded_and_independent_of_arrival(probabilities: Any, sizes: list[int]) -> None:
    whole = spans(probabilities)
    assert whole == spans(probabilities, sizes=sizes)
    end = len(probabilities) * FRAME_SAMPLES
    for before, after in itertools.pairwise(whole):
        assert before.stop <= after.start
    for span in whole:
        assert 0 <= span.start < span.stop <= end and span.stop - span.start <= SPEC.max_length


@given(bursts)
@settings(max_examples=150, deadline=None)
def test_every_frame_of_sure_speech_is_inside_a_span(probabilities: Any) -> None:
    found = spans(probabilities)
    min_frames = SPEC.min_speech // FRAME_SAMPLES + 1
    sure = probabilities >= 0.5
    for first in range(len(sure) - min_frames):
        if sure[first : first + min_frames].all():
            at = first * FRAME_SAMPLES
            assert any(span.start <= at < span.stop for span in found)


@given(bursts, st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_no_span_starts_before_what_may_already_be_forgotten(probabilities: Any, size: int) -> None:
    cutter, kept = SpeechSpans(SPEC), 0
    for at in range(0, len(probabilities), size):
        for span in cutter.push(probabilities[at : at + size].astype(np.float32)):
            assert span.start >= kept
        assert cutter.keep_from >= kept
        kept = cutter.keep_from
    assert all(span.start >= kept for span in cutter.finish(len(probabilities) * FRAME_SAMPLES))


def test_speech_is_padded_and_short_pauses_are_joined() -> None:
    probabilities = [0.0] * 50 + [0.9] * 30 + [0.0] * 20 + [0.9] * 30 + [0.0] * 100
    (span,) = spans(probabilities)
    assert span == Span(50 * FRAME_SAMPLES - 3200, 130 * FRAME_SAMPLES + 3200)


def test_long_pauses_separate() -> None:
    probabilities = [0.9] * 30 + [0.0] * 60 + [0.9] * 30
    assert spans(probabilities) == [
        Span(0, 30 * FRAME_SAMPLES + 3200),
        Span(90 * FRAME_SAMPLES - 3200, 120 * FRAME_SAMPLES),
    ]


def test_endless_speech_is_cut_where_it_is_least_sure() -> None:
    probabilities = np.full(300, 0.95)
    probabilities[140] = 0.6
    first, second = spans(probabilities)[:2]
    assert first.stop == second.start == 140 * FRAME_SAMPLES


def test_clicks_are_not_speech() -> None:
    assert spans([0.0] * 20 + [0.9] * 2 + [0.0] * 50) == []


@given(st.integers(0, 400_000), st.lists(st.integers(1, 90_000), max_size=6))
@settings(max_examples=60, deadline=None)
def test_context_windows_tile_the_recording(num_samples: int, sizes: list[int]) -> None:
    cutter, found, at = ContextWindows(WINDOWS), list[Span](), 0
    for size in [*sizes, num_samples]:
        count = min(size, num_samples - at)
        found += cutter.push(np.zeros(count, np.int16))
        at += count
    found += cutter.finish()
    edges = [0, *(span.stop for span in found)]
    assert [span.start for span in found] == edges[:-1] and edges[-1] == num_samples
    for span in found:
        assert span.stop - span.start + span.left + span.right <= WINDOWS.max_length
        assert span.left == min(span.start, WINDOWS.context)


@pytest.mark.parametrize("num_samples", [1, 95_999, 96_000, 96_001, 300_000])
def test_quiet_windows_tile_the_recording_and_cut_in_the_pause(num_samples: int) -> None:
    pcm = np.full(num_samples, 5000, np.int16)
    pcm[80_000:82_000] = 0
    cutter = QuietWindows(SPEC)
    found = [*cutter.push(pcm[: num_samples // 3]), *cutter.push(pcm[num_samples // 3 :]), *cutter.finish()]
    edges = [0, *(span.stop for span in found)]
    assert [span.start for span in found] == edges[:-1] and edges[-1] == num_samples
    assert all(span.stop - span.start <= SPEC.max_length for span in found)
    if num_samples > SPEC.max_length:
        assert 80_000 <= found[0].stop <= 82_000


def test_context_starts_on_whole_frames() -> None:
    spec = cutting("fixed", max_length_s=29.99, context_s=3.333)
    assert isinstance(spec, SegmentSpec)
    assert spec.context % 320 == 0 and (spec.max_length - 2 * spec.context) % 320 == 0
