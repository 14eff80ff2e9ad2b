"""Diarization: segments of a piece are cut where the speaker changes in a pause, before other models run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.vad import FRAME_SAMPLES
from audiomill.models.base import LocalSpeaker
from audiomill.models.batch import Batch, SegmentResult

LEAST_PAUSE = samples_from_seconds(0.2)
"""In which nobody speaks, between two speakers: a cut there costs no word."""
AROUND = samples_from_seconds(0.3)
_LEVEL_STEP = samples_from_seconds(0.01)
QUIET_SHARE = 0.1
"""Of the loud samples of a segment, which nothing in a pause exceeds."""
ANOTHER = 0.6
"""Cosine distance of two voices that are different people's."""
LEAST_SIDE = samples_from_seconds(1.0)
"""Of a segment on each side of a cut: recognisers write less well what is shorter."""


def cut_at_speakers(batch: Batch, number: int) -> Batch:
    """The batch with segments cut between two speakers.

    Args:
        batch: behind the forward pass of the diarizer. Its predictions stay with the first part of a segment, whose clock
            they have.
        number: of the diarizer.
    """
    results: list[SegmentResult] = []
    for result in batch.results:
        if result.failure is not None:
            results.append(result)
            continue
        segment = result.segment
        first, *rest = segment.cut_at(_edges(segment, result.predictions[number].readout.local))
        results += [replace(result, segment=first), *(SegmentResult(part) for part in rest)]
    return replace(batch, results=tuple(results))


def _edges(segment: Segment, local: Sequence[LocalSpeaker]) -> list[int]:
    """Samples of a segment at which it is cut: its ends, and pauses between two speakers."""
    length = segment.num_samples
    edges = [0, length]
    if segment.left or segment.right or segment.is_overlap_copy:
        return edges
    end, before = 0, None
    for each in sorted(local, key=lambda each: each.span[:2]):
        start, stop, _ = each.span
        if before is not None and start >= end and _is_another(before, each):
            middle = _quiet_middle(segment.pcm_T, before.span[1] if start - end < LEAST_PAUSE else end, start)
            if middle is not None and middle - edges[-2] >= LEAST_SIDE and length - middle >= LEAST_SIDE:
                edges.insert(-1, middle)
        if stop > end:
            end, before = stop, each
    return edges


def _is_another(one: LocalSpeaker, other: LocalSpeaker) -> bool:
    """By their voices where both are heard long enough, else by what the network of frames says."""
    if one.vector_D is None or other.vector_D is None:
        return one.window == other.window and one.number != other.number
    lengths = float(np.linalg.norm(one.vector_D) * np.linalg.norm(other.vector_D))
    return 1.0 - float(one.vector_D @ other.vector_D) / max(lengths, 1e-9) > ANOTHER


def _quiet_middle(pcm_T: NDArray[np.int16], end: int, start: int) -> int | None:
    """The middle of a pause around the edge between two speakers, at a whole frame of voice activity; None: there is none."""
    first, last = max(0, end - AROUND), min(len(pcm_T), start + AROUND)
    level = np.abs(pcm_T[first:last].astype(np.int32))
    if len(level) < LEAST_PAUSE:
        return None
    loudest = np.lib.stride_tricks.sliding_window_view(level, LEAST_PAUSE)[::_LEVEL_STEP].max(1)
    at = int(loudest.argmin())
    if loudest[at] > QUIET_SHARE * np.percentile(np.abs(pcm_T.astype(np.int32)), 95):
        return None
    return int((first + at * _LEVEL_STEP + LEAST_PAUSE // 2) // FRAME_SAMPLES * FRAME_SAMPLES)
