"""A model's answers to utterances: the first ones in exact batches, then those of higher rungs for what fails its checks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from audiomill.models.base import Answer, SpeechModel, Utterance
from audiomill.models.task import LoadedTask
from audiomill.stages.answers.batching import Batched, run_batches


def run_model(utterances: Sequence[Utterance], model: SpeechModel, batch_samples: int) -> Batched:
    """First answers of a model to all utterances."""
    if model.packer is None:
        return _run_alone(utterances, model, batch_samples)
    packs = model.packer.packed(utterances)
    found = _run_alone([pack.utterance for pack in packs], model, batch_samples)
    answers: list[Answer | None] = []
    for each, answer in zip(packs, found.answers, strict=True):
        lost = [None] * len(each.members)
        answers += lost if answer is None else model.packer.unpacked(each, answer, utterances)
    windows = ([each.utterance for each in packs], found.answers)
    errors = {member: error for number, error in found.errors.items() for member in packs[number].members}
    return found._replace(answers=answers, windows=windows, errors=errors)


def _run_alone(utterances: Sequence[Utterance], model: SpeechModel, batch_samples: int) -> Batched:
    padded = [model.padded_length(len(u.pcm_T)) for u in utterances]
    return run_batches(utterances, padded, model.forward, batch_samples, model)


def climbed(task: LoadedTask, utterances: Sequence[Utterance], answers: Sequence[Answer]) -> list[Answer]:
    """The answers, those that fail the model's own checks replaced by better ones from higher rungs of its ladder."""
    found, ladder = list(answers), task.model.ladder
    if ladder is None:
        return found
    utterances = ladder.told(utterances, found)
    retold = [i for i, (u, answer) in enumerate(zip(utterances, found, strict=True)) if ladder.is_retold(u, answer)]
    for i, answer in _heard_again(utterances, retold, task, 0):
        found[i] = ladder.replaced(found[i], answer)
    for rung in range(1, ladder.num_rungs + 1):
        failing = ladder.failing(utterances, found, rung)
        if not failing:  # a higher rung may still be for others
            continue
        pairs = _heard_again(utterances, failing, task, rung)
        chosen = [i for i, _ in pairs]
        kept = ladder.better([utterances[i] for i in chosen], [found[i] for i in chosen], [a for _, a in pairs])
        for i, answer in zip(chosen, kept, strict=True):
            found[i] = answer
    parts = ladder.left_out(utterances, found)
    if parts:
        heard = _run_alone([part.utterance for part in parts], task.model, task.spec.batch_samples).answers
        lost = {part.row for part, answer in zip(parts, heard, strict=True) if answer is None}
        told = [(part, answer) for part, answer in zip(parts, heard, strict=True) if answer and part.row not in lost]
        found = ladder.filled([part for part, _ in told], [answer for _, answer in told], found)
    texts = ladder.settled(utterances, [answer.text for answer in found])
    return [answer._replace(text=text) for answer, text in zip(found, texts, strict=True)]


def _heard_again(
    utterances: Sequence[Utterance], chosen: Sequence[int], task: LoadedTask, rung: int
) -> list[tuple[int, Answer]]:
    """Answers of a rung to some of the utterances, where the model gives one; rung 0 is the first way."""
    again, model, ladder = [utterances[i] for i in chosen], task.model, task.model.ladder
    if rung == 0 or ladder is None:
        tried = _run_alone(again, model, task.spec.batch_samples).answers
    else:
        padded = [ladder.padded_length(len(u.pcm_T), rung) for u in again]
        tried = run_batches(again, padded, partial(ladder.forward, rung=rung), task.spec.batch_samples, model).answers
    return [(i, answer) for i, answer in zip(chosen, tried, strict=True) if answer is not None]
