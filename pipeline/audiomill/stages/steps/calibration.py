"""Confidence as the expected share of right words, where labelled audio was there to learn it from."""

from __future__ import annotations

import numpy as np

from audiomill.models.batch import Batch, SegmentResult
from audiomill.models.task import LoadedTask
from audiomill.tables.rows import stored_confidence
from audiomill.text.calibrate import SIGNS, calibration_of, signs_of


def calibrate(batch: Batch, number: int, task: LoadedTask) -> Batch:
    """The transcripts of a model with calibrated confidence."""
    if task.spec.calibration is None:
        return batch
    signs = np.array([_signs(each, number) for each in batch.good]).reshape(-1, len(SIGNS))
    expected = calibration_of(task.spec.calibration).expected_wer(signs)

    def merge(result: SegmentResult, wer: float) -> SegmentResult:
        return result.with_transcript(number, result.transcripts[number]._replace(confidence=1.0 - float(wer)))

    return batch.merged(list(expected), merge)


def _signs(result: SegmentResult, number: int) -> tuple[float, ...]:
    transcript, seconds = result.transcripts[number], result.segment.seconds
    confidence = stored_confidence(transcript)
    return signs_of(confidence, transcript.self_consistency, transcript.fallback_level, transcript.text, seconds)
