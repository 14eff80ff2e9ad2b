"""Decoding with fallback: texts that fail the model's own checks are decoded again, in other ways."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from audiomill.audio.cutting.segment import Segment
from audiomill.models.batch import Batch
from audiomill.models.task import LoadedTask
from audiomill.stages.steps.batching import run_batches

if TYPE_CHECKING:
    from audiomill.models.seq2seq.autoregressive import AutoregressiveModel
    from audiomill.models.seq2seq.hypothesis import DecodingOptions, Hypothesis


def fallback(batch: Batch, number: int, task: LoadedTask) -> Batch:
    """See `audiomill.models.seq2seq.decoding_fallback`; a model without a policy decodes once."""
    if task.model.fallback is None:
        return batch
    hypotheses = with_fallback(batch.segments_for(number), batch.hypotheses(number), task)
    return batch.merged(hypotheses, lambda result, hypothesis: result.with_hypothesis(number, hypothesis))


def with_fallback(segments: Sequence[Segment], hypotheses: Sequence[object], task: LoadedTask) -> Sequence[object]:
    """Texts of the first pass, replaced by better ones where they fail their checks."""
    policy = task.model.fallback
    if policy is None:
        return hypotheses
    from audiomill.models.seq2seq.autoregressive import FallbackPolicy
    from audiomill.models.seq2seq.decoding_fallback import decode_with_fallback
    from audiomill.models.seq2seq.hypothesis import Hypothesis  # only here: torch takes seconds to import

    assert isinstance(policy, FallbackPolicy), "there is one kind"
    texts = [each for each in hypotheses if isinstance(each, Hypothesis)]
    return decode_with_fallback(segments, texts, policy, partial(_decode_all, batch_samples=task.spec.batch_samples))


def _decode_all(
    segments: Sequence[Segment], model: AutoregressiveModel, options: DecodingOptions, *, batch_samples: int
) -> list[Hypothesis | None]:
    """Hypotheses in exact batches; None where the model fails."""
    padded = [model.context(len(segment.pcm_T), options) * options.num_beams for segment in segments]
    batched = run_batches(segments, padded, partial(model.decode, options=options), batch_samples, model)
    return [None if isinstance(each, Exception) else each for each in batched.results]
