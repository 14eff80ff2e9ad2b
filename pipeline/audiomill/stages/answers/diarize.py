"""Diarization of the segments of a piece, before other models run; segments are cut where speakers change."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audiomill.audio.clock import samples_from_seconds
from audiomill.audio.vad import FRAME_SAMPLES
from audiomill.models.base import LocalSpeaker, Prediction, Utterance
from audiomill.models.task import LoadedTask
from audiomill.stages.answers.batching import Batched
from audiomill.stages.answers.fallback import run_model
from audiomill.tables.speaker_tables import observed_rows

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


@dataclass(frozen=True)
class Diarized:
    """`cuts` and `utterances` (a sequence a task) as they are to be heard by the others; `rows`: see `audiomill.tables.speaker_tables`;
    `diarizer_pairs`: the utterances that the diarizer was given, with its answers; `lost`: cuts that it failed on, with their errors."""

    cuts: Sequence[dict[str, Any]]
    utterances: Sequence[Sequence[Utterance]]
    rows: pa.Table | None = None
    batched: Batched | None = None
    diarizer_pairs: tuple[Sequence[Utterance], Sequence[Prediction]] = ((), ())
    lost: Mapping[int, Exception | None] = field(default_factory=dict)


def diarize(
    cuts: Sequence[dict[str, Any]],
    diarizer_utterances: Sequence[Utterance],
    others: Sequence[Sequence[Utterance]],
    diarizer: LoadedTask,
) -> Diarized:
    """What a diarizer hears in the segments of a piece.

    Args:
        cuts: the segments.
        diarizer_utterances: the same as the diarizer hears them.
        others: and as each other task does.
        diarizer: tells local speakers.
    """
    batched = run_model(diarizer_utterances, diarizer.model, diarizer.spec.batch_samples)
    good = [number for number, answer in enumerate(batched.answers) if answer is not None]
    answers = [answer for answer in batched.answers if answer is not None]
    diarized = ([diarizer_utterances[number] for number in good], answers)
    good_cuts = [cuts[number] for number in good]
    rows = observed_rows(good_cuts, answers)
    lost = {number: batched.errors.get(number) for number in set(range(len(cuts))) - set(good)}
    requested = diarizer.spec.requested.turns
    assert requested is not None, "the task is a diarizer"
    utterances = [[other[number] for number in good] for other in others]
    if requested.splits:
        edges = [
            _edges(cut, utterance.pcm_T, answer.readout.local)
            for cut, utterance, answer in zip(good_cuts, diarized[0], answers, strict=True)
        ]
        utterances = [
            [part for u, at in zip(each, edges, strict=True) for part in _parts(u, at)] for each in utterances
        ]
        good_cuts = [part for cut, at in zip(good_cuts, edges, strict=True) for part in _cut_parts(cut, at)]
    return Diarized(good_cuts, utterances, rows, batched, diarized, lost)


def _edges(cut: Mapping[str, Any], pcm_T: NDArray[np.int16], local: Sequence[LocalSpeaker]) -> list[int]:
    """Samples of a segment at which it is cut: its ends, and pauses between two speakers."""
    length = cut["stop"] - cut["start"]
    edges = [0, length]
    if cut["left"] or cut["right"] or cut["is_overlap_copy"]:
        return edges
    end, before = 0, None
    for each in sorted(local, key=lambda each: each.span[:2]):
        start, stop, _ = each.span
        if before is not None and start >= end and _is_another(before, each):
            middle = _quiet_middle(pcm_T, before.span[1] if start - end < LEAST_PAUSE else end, start)
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


def _cut_parts(cut: dict[str, Any], edges: Sequence[int]) -> list[dict[str, Any]]:
    return [
        cut | {"start": cut["start"] + first, "stop": cut["start"] + last} for first, last in itertools.pairwise(edges)
    ]


def _parts(utterance: Utterance, edges: Sequence[int]) -> list[Utterance]:
    """Views of an utterance without context."""
    if len(edges) == 2:
        return [utterance]
    parts = []
    wave_TK, vad_mask = utterance.wave_TK, utterance.vad_mask
    ratio = 0.0 if wave_TK is None else len(wave_TK) / len(utterance.pcm_T)
    for first, last in itertools.pairwise(edges):
        part = utterance._replace(pcm_T=utterance.pcm_T[first:last], start=utterance.start + first)
        if wave_TK is not None:
            part = part._replace(wave_TK=wave_TK[round(first * ratio) : round(last * ratio)])
        if vad_mask is not None:
            part = part._replace(vad_mask=vad_mask[first // FRAME_SAMPLES : -(-last // FRAME_SAMPLES)])
        parts.append(part)
    return parts
