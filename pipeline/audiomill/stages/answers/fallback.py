"""Predictions for utterances: a first pass in exact batches, then decoding with fallback for texts that fail their checks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from audiomill.models.base import Prediction, SpeechModel, Utterance
from audiomill.models.task import LoadedTask
from audiomill.stages.answers.batching import Batched, run_batches


def run_model(utterances: Sequence[Utterance], model: SpeechModel, batch_samples: int) -> Batched:
    """The first pass of a model over all utterances."""
    padded = [model.padded_length(len(u.pcm_T)) for u in utterances]
    return run_batches(utterances, padded, model.forward, batch_samples, model)


def decode_with_fallback(
    task: LoadedTask, utterances: Sequence[Utterance], answers: Sequence[Prediction]
) -> list[Prediction]:
    """The answers, those that fail the model's own checks replaced by better ones from higher fallback levels."""
    decode, fallback_policy = list(answers), task.model.fallback
    if fallback_policy is None:
        return decode
    utterances = fallback_policy.smooth_language_id(utterances, decode)
    redecoded = [
        i
        for i, (u, answer) in enumerate(zip(utterances, decode, strict=True))
        if fallback_policy.needs_redecoding(u, answer)
    ]
    for i, answer in _decode_again(utterances, redecoded, task, 0):
        decode[i] = fallback_policy.replace_text(decode[i], answer)
    for fallback_level in range(1, fallback_policy.num_levels + 1):
        failing = fallback_policy.find_failed(utterances, decode, fallback_level)
        if not failing:  # a higher level may still be for others
            continue
        pairs = _decode_again(utterances, failing, task, fallback_level)
        chosen = [i for i, _ in pairs]
        better = fallback_policy.choose_better(
            [utterances[i] for i in chosen], [decode[i] for i in chosen], [a for _, a in pairs]
        )
        for i, answer in zip(chosen, better, strict=True):
            decode[i] = answer
    parts = fallback_policy.find_deletions(utterances, decode)
    if parts:
        part_predictions = run_model([part.utterance for part in parts], task.model, task.spec.batch_samples).answers
        lost = {part.row for part, answer in zip(parts, part_predictions, strict=True) if answer is None}
        messages = [
            (part, answer)
            for part, answer in zip(parts, part_predictions, strict=True)
            if answer and part.row not in lost
        ]
        decode = fallback_policy.fill_deletions(
            [part for part, _ in messages], [answer for _, answer in messages], decode
        )
    texts = fallback_policy.finalize(utterances, [answer.text for answer in decode])
    return [answer._replace(text=text) for answer, text in zip(decode, texts, strict=True)]


def _decode_again(
    utterances: Sequence[Utterance], chosen: Sequence[int], task: LoadedTask, fallback_level: int
) -> list[tuple[int, Prediction]]:
    """Predictions of one fallback level for some of the utterances; level 0 is the first pass."""
    again, model, fallback_policy = [utterances[i] for i in chosen], task.model, task.model.fallback
    if fallback_level == 0 or fallback_policy is None:
        tried = run_model(again, model, task.spec.batch_samples).answers
    else:
        padded = [fallback_policy.padded_length(len(u.pcm_T), fallback_level) for u in again]
        tried = run_batches(
            again,
            padded,
            partial(fallback_policy.forward, fallback_level=fallback_level),
            task.spec.batch_samples,
            model,
        ).answers
    return [(i, answer) for i, answer in zip(chosen, tried, strict=True) if answer is not None]
