"""Segments on their way through the models: a failure keeps its place, and steps are given what is left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.models.base import OnProgress, Parity, Prediction, RequestedOutputs, SpeechModel, Transcript
from audiomill.models.batch import Batch, Difference, SegmentResult, joined
from audiomill.models.task import LoadedTask, TaskSpec
from audiomill.stages.infer import inference_steps
from audiomill.stages.steps.forward import forward
from audiomill.stages.steps.language_changes import cut_at_languages

RATE = 16_000


class Speller(SpeechModel):
    """Writes how long a segment is; fails on segments of the recording `bad`, splits what is longer than a second."""

    pads_rows_alone = True

    def forward(self, batch: Sequence[Segment]) -> list[Prediction]:
        if any(segment.recording_id == "bad" for segment in batch):
            raise ValueError("bad sound")
        return [Prediction(f"{len(segment.pcm_T)} {segment.language}") for segment in batch]

    def split_by_language(self, segment: Segment, prediction: Prediction) -> list[Segment]:
        if segment.num_samples <= RATE:
            return [segment]
        one, other = segment.cut_at([0, RATE, segment.num_samples])
        return [one._replace(language="en"), other._replace(language="de")]

    def parity(self, segment: Segment) -> Parity:
        return Parity(note="none")

    def transcripts(self, segments: Sequence[Segment], texts: Sequence[Any]) -> list[Transcript]:
        return [Transcript(text, None, None, None, None, None, None) for text in texts]


def spec(**requested: Any) -> TaskSpec:
    config = ModelConfig(model="m")
    return TaskSpec(label="m", model=config, requested=RequestedOutputs(**requested), hop=1, batch_samples=10 * RATE)


def batch_of(*segments: tuple[str, int], specs: Sequence[TaskSpec] = ()) -> Batch:
    sounds = [Segment(np.zeros(n, np.int16), 0, 0, (name, None), 100) for name, n in segments]
    return Batch(tuple(specs or [spec(transcripts=TranscriptConfig())]), tuple(map(SegmentResult, sounds)))


def test_a_failed_segment_keeps_its_place_and_later_steps_do_not_see_it() -> None:
    batch = batch_of(("a", 10), ("bad", 20), ("b", 30))
    task = LoadedTask(batch.specs[0], Speller())
    done = forward(batch, 0, task)
    assert [each.failure is None for each in done.results] == [True, False, True]
    assert [each.predictions[0].text for each in done.good] == ["10 None", "30 None"]
    assert [len(segment.pcm_T) for segment in done.segments_for(0)] == [10, 30]
    marked = done.merged(["x", "y"], lambda result, text: result.with_hypothesis(0, text))
    assert [dict(each.predictions) for each in marked.results][1] == {}
    assert [each.predictions[0].text for each in marked.good] == ["x", "y"]
    assert [each.first[0].text for each in marked.good] == ["10 None", "30 None"], "the first pass is kept"
    with pytest.raises(ValueError, match="zip"):
        done.merged(["x"], lambda result, text: result)


def test_progress_reaches_the_end_although_a_segment_fails() -> None:
    seen: list[tuple[int, int]] = []
    batch = batch_of(("a", 10), ("bad", 20), ("b", 30))
    progress: OnProgress = lambda segments, samples: seen.append((segments, samples))  # noqa: E731
    forward(batch, 0, LoadedTask(batch.specs[0], Speller()), progress)
    assert sum(n for n, _ in seen) == 3 and sum(n for _, n in seen) == 60


def test_what_changes_its_language_is_cut_and_every_model_is_run_over_the_parts() -> None:
    specs = [spec(transcripts=TranscriptConfig()), spec(transcripts=TranscriptConfig(), beside=2)]
    batch = batch_of(("a", RATE // 2), ("b", 2 * RATE), ("bad", 3 * RATE), ("c", RATE // 2), specs=specs)
    tasks = [LoadedTask(each, Speller()) for each in specs]
    steps = [partial(forward, number=number, task=task) for number, task in enumerate(tasks)]
    for step in steps:
        batch = step(batch)
    done = cut_at_languages(batch, 0, tasks[0], steps)
    assert [each.segment.recording_id for each in done.results] == ["a", "b", "b", "bad", "c"]
    parts = [each for each in done.results if each.segment.recording_id == "b"]
    assert [(each.segment.start, each.segment.language) for each in parts] == [(100, "en"), (100 + RATE, "de")]
    for number in (0, 1):
        assert [each.predictions[number].text for each in parts] == [f"{RATE} en", f"{RATE} de"]
    assert done.results[0] is batch.results[0], "what is not cut is as it was"


def test_batches_are_joined_with_what_they_cost_and_showed() -> None:
    batch = batch_of(("a", 10), ("b", 30))
    task = LoadedTask(batch.specs[0], Speller())
    halves = [forward(batch.only(name), 0, task) for name in ("a", "b")]
    one = Batch(batch.specs, halves[0].results, halves[0].costs, {0: Difference(2, 0.1)})
    other = Batch(batch.specs, halves[1].results, halves[1].costs, {0: Difference(1, 0.3)})
    both = joined([one, other])
    assert [each.segment.recording_id for each in both.results] == ["a", "b"]
    assert sum(cost.num_real for cost in both.costs) == 40
    assert both.differences == {0: Difference(3, 0.3)} and both.num_verified == 3


def test_the_steps_of_a_run_are_those_that_it_needs() -> None:
    def names(*specs: TaskSpec) -> list[str]:
        tasks = [LoadedTask(each, Speller()) for each in specs]
        return [step.func.__name__ for step in inference_steps(tasks, 0, print, 1)]  # type: ignore[attr-defined]

    assert names(spec()) == ["forward", "verify", "fallback"]
    main = ["transcribe", "keep_first_pass", "calibrate", "second_pass"]
    text = spec(transcripts=TranscriptConfig())
    assert names(text) == ["forward", "cut_at_languages", "verify", "fallback", *main]
    other = spec(transcripts=TranscriptConfig(), beside=2)
    assert names(text, other)[-2:] == ["transcribe", "calibrate"]
