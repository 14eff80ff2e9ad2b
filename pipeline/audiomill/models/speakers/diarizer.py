"""Diarization: Who is heard where in a segment: a network tells local speakers frame by frame, another makes a vector of each.

The local speakers of a segment have numbers that mean nothing outside it; `audiomill.speakers` finds out who is who.
B batch, T samples, F frames, S local speakers, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import LocalSpeaker, Parity, Prediction, Readout, SpeechModel
from audiomill.models.speakers.embedder import FULL_SCALE, SpeakerEmbedder
from audiomill.models.watchdog import heartbeat

_BATCH_SAMPLES = 160 * MODEL_SAMPLE_RATE
_LONGEST_PAUSE = samples_from_seconds(0.15)
"""Inside a turn."""
SHORTEST_TURN = samples_from_seconds(0.1)
VECTOR_STEP = MODEL_SAMPLE_RATE // 4
_STRETCH = 5 * MODEL_SAMPLE_RATE // 2
"""Of speech, about, that one vector is made of: long enough to tell people apart, short enough to hold one of them."""
_LEVEL_STEP = MODEL_SAMPLE_RATE // 100
SEARCH = MODEL_SAMPLE_RATE // 2
"""How far from its even share a stretch may end, to end at a quiet moment."""
SHORTEST_PAUSE = samples_from_seconds(0.2)
QUIET_DB, LEAST_QUIET_DB = 30.0, 9.0
"""Below the loud moments of a span: what is a pause, and how much it must be where noise fills pauses."""
LEAST_OF_A_VOICE = MODEL_SAMPLE_RATE // 2
"""Less tells nobody from anybody."""


@dataclass(frozen=True)
class FrameClassifier:
    """`activity`: wave_BT of one length -> probability_BFS and active_BFS; frame i stands for `hop` samples around
    `first + i * hop`; `least`: samples that it needs; `device`: of its weights; `window`: longest that it hears at once, and what it was
    trained on; `step`: windows are filled up with zeros to a multiple of this, so that many have the same length; `parity`: with
    another implementation."""

    activity: Callable[[Tensor], tuple[Tensor, Tensor]]
    hop: int
    first: int
    least: int
    device: torch.device
    window: int = 10 * MODEL_SAMPLE_RATE
    step: int = MODEL_SAMPLE_RATE // 2
    parity: Callable[[NDArray[np.int16]], Parity] = lambda pcm_T: Parity(
        note="input and forward pass: transformers has no such model"
    )


_Span = tuple[int, int, float]
"""(start, stop, mean probability), samples of a window."""


class _Window(NamedTuple):
    """A stretch of a segment. `start`: its first sample there."""

    row: int
    start: int
    pcm_T: NDArray[np.int16]


class Diarizer(SpeechModel):
    """See `audiomill.models.base.SpeechModel`.

    Args:
        classifier: tells local speakers.
        embedder: makes vectors of them.
    """

    pads_rows_alone = True

    def __init__(self, classifier: FrameClassifier, embedder: SpeakerEmbedder) -> None:
        self._classifier, self._embedder = classifier, embedder

    def padded_length(self, num_samples: int) -> int:
        """Of all windows together."""
        count = max(1, -(-num_samples // self._classifier.window))
        return count * self._filled(-(-num_samples // count))

    def _filled(self, num_samples: int) -> int:
        step = self._classifier.step
        return -(-max(num_samples, self._classifier.least) // step) * step

    def parity(self, segment: Segment) -> Parity:
        return self._classifier.parity(_without_context(segment))

    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        """Local speakers of each row."""
        longest = self._classifier.window
        windows = [
            window for row, each in enumerate(batch) for window in _windows(row, _without_context(each), longest)
        ]
        stretches = [
            (window, local, *stretch)
            for window, spans in zip(windows, self._local_spans(windows), strict=True)
            for local, local_spans in enumerate(spans)
            for stretch in _stretches(
                window.pcm_T, local_spans, [span for other in spans if other is not local_spans for span in other]
            )
        ]
        vectors = iter(self._embedder.vectors([voice for *_, voice in stretches if voice is not None]))
        results: list[list[LocalSpeaker]] = [[] for _ in batch]
        for window, local, (start, stop, probability), voice in stretches:
            alone, vector = (0, None) if voice is None else (len(voice), next(vectors))
            span = (window.start + start, window.start + stop, probability)
            results[window.row].append(LocalSpeaker(window.start, local, span, alone, vector))
        return [Prediction(None, Readout(local=tuple(result))) for result in results]

    @torch.inference_mode()
    def _local_spans(self, windows: Sequence[_Window]) -> list[list[list[_Span]]]:
        """Spans of each local speaker of each window."""
        order = sorted(range(len(windows)), key=lambda at: self._filled(len(windows[at].pcm_T)))
        results: list[list[list[_Span]]] = [[] for _ in windows]
        for length, alike in groupby(order, key=lambda at: self._filled(len(windows[at].pcm_T))):
            some, at_once = list(alike), max(1, _BATCH_SAMPLES // length)
            for first in range(0, len(some), at_once):
                batch = some[first : first + at_once]
                pcm_BT = np.stack([np.pad(windows[at].pcm_T, (0, length - len(windows[at].pcm_T))) for at in batch])
                wave_BT = torch.from_numpy(pcm_BT).to(self._classifier.device).float() / FULL_SCALE
                probability_BFS, active_BFS = self._classifier.activity(wave_BT)
                for at, *each in zip(batch, probability_BFS.cpu().numpy(), active_BFS.cpu().numpy(), strict=True):
                    results[at] = self._spans(len(windows[at].pcm_T), *each)
                heartbeat()
        return results

    def _spans(
        self, num_samples: int, probability_FS: NDArray[np.float32], active_FS: NDArray[np.bool_]
    ) -> list[list[_Span]]:
        hop, first = self._classifier.hop, self._classifier.first
        starts_F = first + hop * np.arange(len(active_FS)) - hop // 2
        starts_F[0] = 0
        num_frames = int(np.searchsorted(starts_F, num_samples))
        edges = np.append(starts_F[:num_frames], num_samples)
        edges[-1] = num_samples
        return [
            spans_of(active_FS[:num_frames, local], probability_FS[:num_frames, local], edges)
            for local in range(active_FS.shape[1])
        ]


def _without_context(segment: Segment) -> NDArray[np.int16]:
    """Without its context."""
    return segment.pcm_T[segment.left : len(segment.pcm_T) - segment.right]


def _windows(row: int, pcm_T: NDArray[np.int16], longest: int) -> list[_Window]:
    """Of one length, without context: voices tell who is who across them."""
    count = max(1, -(-len(pcm_T) // longest))
    edges = [len(pcm_T) * at // count for at in range(count + 1)]
    return [_Window(row, first, pcm_T[first:last]) for first, last in pairwise(edges)]


def spans_of(active_F: NDArray[np.bool_], probability_F: NDArray[np.float32], edges: NDArray[np.int64]) -> list[_Span]:
    """Stretches of active frames, short pauses closed, short bursts left out."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], active_F, [False]]).astype(np.int8)))
    joined: list[list[int]] = []
    for first, last in changes.reshape(-1, 2).tolist():
        if joined and edges[first] - edges[joined[-1][1]] <= _LONGEST_PAUSE:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    return [
        (int(edges[first]), int(edges[last]), round(float(probability_F[first:last].mean()), 4))
        for first, last in joined
        if edges[last] - edges[first] >= SHORTEST_TURN
    ]


def _stretches(
    pcm_T: NDArray[np.int16], spans: Sequence[_Span], others: Sequence[_Span]
) -> Iterator[tuple[_Span, NDArray[np.int16] | None]]:
    """Spans of a local speaker, the long ones in several stretches, each with what its vector is made of: a network that takes two
    people for one is found out by their voices."""
    is_alone = np.ones(len(pcm_T), bool)
    for start, stop, _ in others:
        is_alone[start:stop] = False
    for start, stop, probability in spans:
        for first, last in pairwise(stretch_edges(pcm_T[start:stop])):
            first, last = start + first, start + last
            yield (first, last, probability), _voice(pcm_T[first:last], is_alone[first:last])


def stretch_edges(pcm_T: NDArray[np.int16]) -> list[int]:
    """Samples at which a span is cut into stretches: its ends, the middles of pauses, where the next one may be another's, and quiet
    moments in what is still long."""
    level_F = _levels_db(pcm_T)
    edges = [0, *_pauses(level_F), len(pcm_T)]
    results = [0]
    for first, last in pairwise(edges):
        count = max(1, round((last - first) / _STRETCH))
        for number in range(1, count):
            around = first + (last - first) * number // count
            nearest = slice(max(0, (around - SEARCH) // _LEVEL_STEP), (around + SEARCH) // _LEVEL_STEP)
            quietest = (nearest.start + int(level_F[nearest].argmin())) * _LEVEL_STEP
            if quietest - results[-1] >= LEAST_OF_A_VOICE and last - quietest >= LEAST_OF_A_VOICE:
                results.append(quietest)
        results.append(last)
    return results


def _levels_db(pcm_T: NDArray[np.int16]) -> NDArray[np.float64]:
    """Of every 10 ms, over the 30 around them."""
    count = max(1, len(pcm_T) // _LEVEL_STEP)
    power = np.square(pcm_T[: count * _LEVEL_STEP].astype(np.float64)).reshape(count, -1).mean(1)
    smooth = np.convolve(power, np.full(3, 1 / 3), "same")
    levels_db: NDArray[np.float64] = 10 * np.log10(smooth + 1.0)
    return levels_db


def _pauses(level_F: NDArray[np.float64]) -> list[int]:
    """Middles of stretches that are quiet beside what is around them, none nearer than half a second to another or to an end."""
    loud, floor = np.percentile(level_F, 90), np.percentile(level_F, 5)
    is_quiet = level_F < max(loud - QUIET_DB, min(floor + 6.0, loud - LEAST_QUIET_DB))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_quiet, [False]]).astype(np.int8))).reshape(-1, 2)
    pauses: list[int] = []
    for first, last in edges.tolist():
        middle = (first + last) // 2 * _LEVEL_STEP
        is_apart = middle - (pauses[-1] if pauses else 0) >= LEAST_OF_A_VOICE
        is_inside = len(level_F) * _LEVEL_STEP - middle >= LEAST_OF_A_VOICE
        if (last - first) * _LEVEL_STEP >= SHORTEST_PAUSE and is_apart and is_inside:
            pauses.append(middle)
    return pauses


def _voice(pcm_T: NDArray[np.int16], is_alone_T: NDArray[np.bool_]) -> NDArray[np.int16] | None:
    """Samples in which a speaker is heard alone; None: too few for a vector.

    Whole quarters of a second, so that many voices have the same length and go together.
    """
    voice = pcm_T[is_alone_T]
    length = len(voice) // VECTOR_STEP * VECTOR_STEP
    if length < LEAST_OF_A_VOICE:
        return None
    first = (len(voice) - length) // 2
    return voice[first : first + length]
