"""How much of a text stays when its segment is decoded again, a little changed: a sign of doubt that needs no reference.

Source: the idea of consistency under perturbation, e.g. Xie et al. 2019 (arXiv:1904.12848).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.perturb import at_speed, in_noise
from audiomill.models.base import Transcript
from audiomill.models.batch import Batch, SegmentResult
from audiomill.models.task import LoadedTask
from audiomill.stages.steps.transcribe import transcripts_of
from audiomill.text.scripts import units
from audiomill.text.wer import word_edits

CHANGES: tuple[Callable[[NDArray[np.int16]], NDArray[np.int16]], ...] = (
    lambda pcm_T: at_speed(pcm_T, 1.1),
    lambda pcm_T: at_speed(pcm_T, 0.9),
    lambda pcm_T: in_noise(pcm_T, 15.0, np.random.default_rng(1)),
    lambda pcm_T: at_speed(in_noise(pcm_T, 20.0, np.random.default_rng(2)), 1.05),
    lambda pcm_T: at_speed(in_noise(pcm_T, 20.0, np.random.default_rng(3)), 0.95),
)
"""A function of the samples alone, so that batches do not matter."""


def self_consistency(batch: Batch, number: int, task: LoadedTask, times: int) -> Batch:
    """The transcripts with their `self_consistency`: 1 - word errors of what is decoded again, mean over the changes, 0 at least.

    Args:
        batch: with transcripts.
        number: of the model.
        task: the model; it decodes changed segments, by its first pass alone.
        times: how many changes.
    """
    segments = [segment.core for segment in batch.segments_for(number)]
    scores = np.zeros((times, len(segments)))
    for change_number, change in enumerate(CHANGES[:times]):
        changed = [segment._replace(pcm_T=change(segment.pcm_T)) for segment in segments]
        perturbed = transcripts_of(changed, task, falls_back=False)
        for at, result in enumerate(batch.good):
            scores[change_number, at] = _agreement(result.transcripts[number], perturbed[at])

    def merge(result: SegmentResult, score: float) -> SegmentResult:
        return result.with_transcript(number, result.transcripts[number]._replace(self_consistency=score))

    return batch.merged(scores.mean(0).tolist(), merge)


def _agreement(transcript: Transcript, other: Transcript | None) -> float:
    """0 where the model failed on the changed segment."""
    if other is None:
        return 0.0
    words = units(transcript.text)
    return max(0.0, 1 - word_edits(words, units(other.text)) / max(1, len(words)))
