"""Where the spoken language changes inside a segment: known answers by construction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment
from audiomill.audio.vad import FRAME_SAMPLES
from audiomill.models.seq2seq.cross_attention_cache import CrossKV
from audiomill.models.whisper.language_identification import (
    WINDOW_FRAMES,
    LanguagePart,
    contradict,
    language_parts,
    quiet_points,
    window_starts,
)

RATE = 16_000
LEVELS = {"en": 1_000, "de": 4_000, "fr": 9_000}
"""Each language of these tests is as loud as this."""


def talk(*sentences: tuple[str, float], pause_s: float = 0.5) -> NDArray[np.int16]:
    pause = np.zeros(int(pause_s * RATE), np.int16)
    parts = [np.full(int(seconds * RATE), LEVELS[code], np.int16) for code, seconds in sentences]
    return np.concatenate([each for part in parts for each in (part, pause)][:-1])


def detect(stretches: Sequence[NDArray[np.int16]]) -> list[dict[str, float]]:
    """Shares of the samples."""
    counts = [{code: int((pcm_T == level).sum()) + 1 for code, level in LEVELS.items()} for pcm_T in stretches]
    return [{code: count / sum(each.values()) for code, count in each.items()} for each in counts]


def test_a_segment_is_cut_in_the_pause_where_its_language_changes() -> None:
    pcm_T = talk(("en", 4.0), ("de", 3.0), ("de", 2.0), ("fr", 4.0))
    parts = language_parts(pcm_T, detect)
    assert [part.language for part in parts] == ["en", "de", "fr"]
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert parts[0].start == 0 and parts[-1].stop == len(pcm_T)
    for edge, (low, high) in ((parts[0].stop, (4.0, 4.5)), (parts[1].stop, (10.0, 10.5))):
        assert low * RATE <= edge <= high * RATE and edge % FRAME_SAMPLES == 0
    assert all(part.probability > 0.9 for part in parts)


@pytest.mark.parametrize("sentences", [[("en", 9.0)], [("en", 2.0), ("en", 3.0), ("en", 4.0)], [("de", 0.5)]])
def test_one_language_is_one_part(sentences: Any) -> None:
    pcm_T = talk(*sentences)
    (part,) = language_parts(pcm_T, detect)
    assert part[:3] == (0, len(pcm_T), sentences[0][0])


def test_a_side_that_is_not_sure_is_no_side() -> None:
    def unsure(stretches: Sequence[NDArray[np.int16]]) -> list[dict[str, float]]:
        return [
            each if each["de"] < 0.5 else {"en": 0.15, "de": 0.8, "fr": 0.05}
            for each in detect(stretches)
        ]  # fmt: skip

    (part,) = language_parts(talk(("en", 5.0), ("de", 5.0)), unsure)
    assert isinstance(part, LanguagePart)


@given(st.integers(1, 2_000))
def test_windows_cover_a_segment_and_lie_inside_it(num_frames: int) -> None:
    starts = window_starts(num_frames)
    if starts:
        assert starts[0] == 0 and starts[-1] + WINDOW_FRAMES == num_frames and starts == sorted(set(starts))
        assert max(np.diff(starts), default=0) <= WINDOW_FRAMES
    else:
        assert num_frames < 1.5 * WINDOW_FRAMES


@given(st.lists(st.integers(-3_000, 3_000), min_size=1, max_size=400))
def test_quiet_points_are_apart(samples: list[int]) -> None:
    pcm_T = np.repeat(np.array(samples, np.int16), 500)
    points = quiet_points(pcm_T)
    assert points[0] == 0 and points[-1] == len(pcm_T)
    assert all(b - a >= 1.5 * RATE for a, b in pairwise(points) if len(points) > 2)


def test_windows_contradict_where_one_is_hardly_in_the_common_language() -> None:
    english, doubtful, german = {"en": 0.99, "de": 0.01}, {"en": 0.3, "de": 0.7}, {"en": 0.001, "de": 0.999}
    assert not contradict([]) and not contradict([english]) and not contradict([english, doubtful, english])
    assert contradict([english, english, german])


def test_windows_of_a_cache_are_slices_of_its_frames() -> None:
    keys = [torch.randn(1, 2, 300, 4, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    cut = CrossKV(keys, [-key for key in keys]).windows([0, 75, 150], 150)
    assert len(cut) == 3
    for layer, key in enumerate(keys):
        for row, start in enumerate((0, 75, 150)):
            assert torch.equal(cut.keys[layer][row], key[0, :, start : start + 150])
            assert torch.equal(cut.values[layer][row], -key[0, :, start : start + 150])


def test_parts_of_a_segment_have_their_place_in_the_recording() -> None:
    pcm_T = np.arange(4 * RATE, dtype=np.int16)
    mask = bytes(range(len(pcm_T) // FRAME_SAMPLES))
    segment = Segment(pcm_T, 0, 0, ("r", 1), 1_000, waves=(np.zeros((6 * RATE, 1), np.float32),), vad_mask=mask)
    edge = 40 * FRAME_SAMPLES
    one, other = segment.cut_at([0, edge, len(pcm_T)])
    assert (one.start, one.stop, other.start, other.stop) == (1_000, 1_000 + edge, 1_000 + edge, segment.stop)
    assert np.array_equal(np.concatenate([one.pcm_T, other.pcm_T]), pcm_T)
    assert one.vad_mask == mask[:40] and other.vad_mask == mask[40:]
    assert len(one.waves[0]) + len(other.waves[0]) == 6 * RATE and one.track == other.track == ("r", 1)
