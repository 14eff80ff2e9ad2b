"""The segments of a piece on their way through the models of a run, each with what the models made of it so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from audiomill.audio.cutting.segment import Segment
from audiomill.errors import RunError
from audiomill.models.base import Prediction, Transcript
from audiomill.models.task import TaskSpec, wave_forms

_T = TypeVar("_T")


class ForwardCost(NamedTuple):
    """What a forward pass of a model took. Counts: samples; `num_halved`: how often the memory did not hold a batch."""

    num_real: int
    num_padded: int
    num_halved: int = 0


class Difference(NamedTuple):
    """Between batch and alone. `relative_l2`: of vectors and probabilities, the largest of all segments;
    `num_differing` of `num_compared` codes, letters and tokens. `inputs_apart`, `outputs_apart`, `not_compared`: between a
    model here and transformers' own, see `audiomill.models.base.Parity`."""

    num_segments: int = 0
    relative_l2: float = 0.0
    num_differing: int = 0
    num_compared: int = 0
    inputs_apart: float = 0.0
    outputs_apart: float = 0.0
    not_compared: str = ""


def largest(differences: Iterable[Difference]) -> Difference:
    """Sums of the counts, maximum of the errors."""
    results = list(differences)
    return Difference(
        sum(result.num_segments for result in results),
        max((each.relative_l2 for each in results), default=0.0),
        sum(each.num_differing for each in results),
        sum(each.num_compared for each in results),
        max((each.inputs_apart for each in results), default=0.0),
        max((each.outputs_apart for each in results), default=0.0),
        next((each.not_compared for each in results if each.not_compared), ""),
    )


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """A segment and what the models made of it.

    Attributes:
        segment: in every form of the run.
        predictions: by the number of the model.
        first: the same, before the fallback.
        transcripts: by the number of the model; of those that transcribe.
        failure: why a model failed on it; None: none did.
    """

    segment: Segment
    predictions: Mapping[int, Prediction] = field(default_factory=dict)
    first: Mapping[int, Prediction] = field(default_factory=dict)
    transcripts: Mapping[int, Transcript] = field(default_factory=dict)
    failure: Exception | None = None

    def with_prediction(self, number: int, prediction: Prediction | Exception) -> SegmentResult:
        """After the forward pass of a model."""
        if isinstance(prediction, Exception):
            return replace(self, failure=prediction)
        added = {number: prediction}
        return replace(self, predictions={**self.predictions, **added}, first={**self.first, **added})

    def with_hypothesis(self, number: int, hypothesis: object) -> SegmentResult:
        """With another text in a prediction; what was read off the hidden states stays that of the first pass."""
        redecoded = self.predictions[number]._replace(text=hypothesis)
        return replace(self, predictions={**self.predictions, number: redecoded})

    def with_transcript(self, number: int, transcript: Transcript) -> SegmentResult:
        return replace(self, transcripts={**self.transcripts, number: transcript})


@dataclass(frozen=True)
class Batch:
    """Segments of a piece in plan order. A segment that a model failed on keeps its place.

    Attributes:
        specs: the models of the run; their numbers count from 0.
        results: a value a segment.
        costs: of the forward passes.
        differences: what verification saw, by the number of the model.
        second_pass_s: seconds of the second model.
    """

    specs: tuple[TaskSpec, ...]
    results: tuple[SegmentResult, ...]
    costs: tuple[ForwardCost, ...] = ()
    differences: Mapping[int, Difference] = field(default_factory=dict)
    second_pass_s: float = 0.0

    @property
    def good(self) -> list[SegmentResult]:
        """Those that no model failed on."""
        return [each for each in self.results if each.failure is None]

    @property
    def stored(self) -> list[SegmentResult]:
        """Those that give rows."""
        return [each for each in self.good if not each.segment.is_overlap_copy]

    @property
    def main(self) -> int | None:
        """Number of the model whose texts are those of the segments table."""
        return next((n for n, spec in enumerate(self.specs) if spec.requested.is_main), None)

    def segments_for(self, number: int) -> list[Segment]:
        """The segments that no model failed on, in the form that this model hears."""
        form = self.specs[number].form
        if form is None:
            return [each.segment for each in self.good]
        number_of_form = wave_forms(self.specs).index(form)
        return [each.segment.in_form(number_of_form) for each in self.good]

    @property
    def num_verified(self) -> int:
        """Segments that were computed again alone."""
        return max((each.num_segments for each in self.differences.values()), default=0)

    def hypotheses(self, number: int) -> list[object]:
        """Texts of a model as they left its decoder, of the same segments."""
        return [each.predictions[number].text for each in self.good]

    def merged(self, values: Sequence[_T], merge: Callable[[SegmentResult, _T], SegmentResult]) -> Batch:
        """With a new value for each segment that no model has failed on, in order."""
        changed = iter([merge(each, value) for each, value in zip(self.good, values, strict=True)])
        return replace(self, results=tuple(each if each.failure else next(changed) for each in self.results))

    def mapped(self, change: Callable[[SegmentResult], SegmentResult]) -> Batch:
        """With a change of each segment that no model has failed on, in order."""
        return self.merged(self.good, lambda _, result: change(result))

    def with_transcripts(self, number: int, transcripts: Sequence[Transcript]) -> Batch:
        return self.merged(transcripts, lambda result, transcript: result.with_transcript(number, transcript))

    def only(self, recording_id: str) -> Batch:
        """The segments of one recording."""
        mine = tuple(each for each in self.results if each.segment.recording_id == recording_id)
        return replace(self, results=mine)

    def failed(self, error: Exception) -> Batch:
        """The same with every segment lost to an error."""
        return replace(self, results=tuple(replace(each, failure=error) for each in self.results))


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of one run, in order."""
    numbers = {number for batch in batches for number in batch.differences}
    return Batch(
        batches[0].specs,
        tuple(result for batch in batches for result in batch.results),
        tuple(cost for batch in batches for cost in batch.costs),
        {n: largest(batch.differences[n] for batch in batches if n in batch.differences) for n in sorted(numbers)},
        sum(batch.second_pass_s for batch in batches),
    )


InferenceStep = Callable[[Batch], Batch]


def run_steps(batch: Batch, steps_for: Callable[[int], Sequence[InferenceStep]], verify_segments: int) -> Batch:
    """All steps; recording by recording after something failed for all together: what fails again alone is lost. The
    verification then takes its segments from the first recordings that do not fail.

    Args:
        batch: as it was cut.
        steps_for: the steps with a verification of so many segments.
        verify_segments: that are computed again alone.

    Raises:
        RunError: no fault of the audio.
    """
    try:
        result = batch
        for step in steps_for(verify_segments):
            result = step(result)
        return result
    except RunError:
        raise
    except Exception as error:
        names = list(dict.fromkeys(each.segment.recording_id for each in batch.results))
        if len(names) == 1:
            return batch.failed(error)
    results: list[Batch] = []
    for name in names:
        results.append(run_steps(batch.only(name), steps_for, verify_segments))
        verify_segments = max(0, verify_segments - results[-1].num_verified)
    return joined(results)
