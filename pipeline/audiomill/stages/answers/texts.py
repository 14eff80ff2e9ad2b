"""Texts of the models that transcribe: the first one's, aligned and heard again where that is wanted, and the others' beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from audiomill.audio.clock import seconds_from_samples
from audiomill.config.defaults import SECOND_PASS_LEVEL
from audiomill.models.base import Prediction, TimedText, Transcript, Utterance
from audiomill.models.task import LoadedTask
from audiomill.stages.answers.fallback import decode_with_fallback, run_model
from audiomill.stages.answers.self_consistency import with_self_consistency
from audiomill.tables.rows import stored_confidence
from audiomill.text.calibrate import SIGNS, calibration_of, signs_of

FAILED_GATE = "second model"
"""The second model failed on the sound."""
Texts = Sequence[Transcript | None]


class Transcribed(NamedTuple):
    """Texts of each task, None for those that write none; `second_s`: seconds of the second model."""

    by_task: Sequence[Texts]
    second_s: float = 0.0

    def main(self, tasks: Sequence[LoadedTask]) -> Texts:
        """Those of the segments table."""
        return next(
            (texts for task, texts in zip(tasks, self.by_task, strict=True) if task.spec.requested.is_main),
            self.by_task[0],
        )


def transcribe_segments(
    tasks: Sequence[LoadedTask],
    utterances: Sequence[Utterance],
    first: Sequence[Sequence[Prediction]],
    answers: Sequence[Sequence[Prediction]],
) -> Transcribed:
    """The texts of every model that transcribes.

    Args:
        tasks: the models.
        utterances: what they heard.
        first: their first answers.
        answers: their last ones.
    """
    results: list[Texts] = []
    second_s = 0.0
    for number, task in enumerate(tasks):
        wanted = task.spec.requested.transcripts
        if wanted is None:
            results.append([None] * len(utterances))
            continue
        texts: Texts = task.model.transcripts(utterances, [answer.text for answer in answers[number]])
        assert len(texts) == len(utterances), "one transcript per utterance"
        if task.spec.requested.is_main:
            texts = _aligned(tasks, utterances, answers, texts)
            again = wanted.decoder.consistency_samples
            texts = with_self_consistency(utterances, texts, again, partial(_heard_first, task)) if again else texts
            texts = _with_first_texts(task, utterances, first[number], texts)
        texts = _calibrated(task, utterances, texts)
        if task.spec.requested.is_main:
            texts, second_s = _redone(task, utterances, texts)
        results.append(texts)
    return Transcribed(results, second_s)


def _calibrated(task: LoadedTask, utterances: Sequence[Utterance], texts: Texts) -> Texts:
    """The texts with the share of right words that is to be expected of each, where labelled audio told."""
    if task.spec.calibration is None:
        return texts
    signs = [
        signs_of(
            stored_confidence(text),
            text.self_consistency,
            text.fallback_level,
            text.text,
            seconds_from_samples(len(_core(utterance).pcm_T)),
        )
        for utterance, text in zip(utterances, texts, strict=True)
        if text is not None
    ]
    expected = calibration_of(task.spec.calibration).expected_wer(np.array(signs).reshape(len(signs), len(SIGNS)))
    return [
        text._replace(confidence=1.0 - float(wer))
        for text, wer in zip((text for text in texts if text is not None), expected, strict=True)
    ]


def _redone(task: LoadedTask, utterances: Sequence[Utterance], texts: Texts) -> tuple[Texts, float]:
    """The texts, doubtful ones written again by the second model, and the seconds that it took. The segment alone is heard,
    without the context that the first model had."""
    second, below = task.second, task.spec.second_pass_threshold
    if second is None or below is None:
        return texts, 0.0
    began = time.perf_counter()
    doubtful = [n for n, text in enumerate(texts) if text is not None and (stored_confidence(text) or 0.0) < below]
    again = [_core(utterances[n]) for n in doubtful]
    answers = run_model(again, second.model, second.spec.batch_samples).answers
    good = [at for at, answer in enumerate(answers) if answer is not None]
    second_pass = [again[at] for at in good]
    last = decode_with_fallback(second, second_pass, [answer for answer in answers if answer is not None])
    written = dict(zip(good, second.model.transcripts(second_pass, [answer.text for answer in last]), strict=True))
    results = list(texts)
    for at, number in enumerate(doubtful):
        before = texts[number]
        assert before is not None, "it was doubtful"
        results[number] = _instead(before, written.get(at))
    return results, time.perf_counter() - began


def _core(utterance: Utterance) -> Utterance:
    """The segment without its context."""
    pcm_T = utterance.pcm_T[utterance.left : len(utterance.pcm_T) - utterance.right]
    return utterance._replace(pcm_T=pcm_T, left=0, right=0)


def _instead(before: Transcript, after: Transcript | None) -> Transcript:
    """The second model's text in place of the first one's, which is kept beside it where it differs."""
    if after is None:
        return before._replace(failed_checks=(*(before.failed_checks or ()), FAILED_GATE))
    first = before.first_pass_text if before.first_pass_text is not None else before.text
    return after._replace(fallback_level=SECOND_PASS_LEVEL, first_pass_text=first if first != after.text else None)


def _with_first_texts(
    task: LoadedTask, utterances: Sequence[Utterance], first: Sequence[Prediction], texts: Texts
) -> Texts:
    """The transcripts, each with what the first attempt had written where another one's text, or none, was kept."""
    changed = [n for n, text in enumerate(texts) if text is not None and (text.fallback_level or text.failed_checks)]
    if not changed:
        return texts
    before = task.model.transcripts([utterances[n] for n in changed], [first[n].text for n in changed])
    settled = list(texts)
    for number, text in zip(changed, before, strict=True):
        kept_value = texts[number]
        if kept_value is not None and kept_value.text != text.text:
            settled[number] = kept_value._replace(first_pass_text=text.text)
    return settled


def _heard_first(task: LoadedTask, utterances: Sequence[Utterance]) -> list[Transcript | None]:
    """First transcripts of utterances, None where the model fails."""
    answers = run_model(utterances, task.model, task.spec.batch_samples).answers
    good = [at for at, answer in enumerate(answers) if answer is not None]
    texts = [answer.text for answer in answers if answer is not None]
    transcripts: list[Transcript | None] = [None] * len(utterances)
    for at, text in zip(good, task.model.transcripts([utterances[at] for at in good], texts), strict=True):
        transcripts[at] = text
    return transcripts


def _aligned(
    tasks: Sequence[LoadedTask], utterances: Sequence[Utterance], answers: Sequence[Sequence[Prediction]], texts: Texts
) -> Texts:
    """The transcripts with the word times of the first model that aligns, where it can tell."""
    for task, each in zip(tasks, answers, strict=True):
        if task.model.aligner is not None:
            texts = [text if text is None or text.words is not None else _in_words(text) for text in texts]
            words = [[word.text for word in text.words or ()] if text is not None else [] for text in texts]
            edges = task.model.aligner.edges(utterances, [answer.text for answer in each], words)
            return [_retimed(text, result) for text, result in zip(texts, edges, strict=True)]
    return texts


def _in_words(text: Transcript) -> Transcript:
    """With the words of a model that tells none; their times are still to come."""
    probability = math.exp(text.avg_logprob or 0.0)
    return text._replace(words=tuple(TimedText(word, 0, 0, probability) for word in text.text.split()))


def _retimed(text: Transcript | None, edges: list[tuple[int, int]] | None) -> Transcript | None:
    if text is None or text.words is None:
        return text
    if edges is None:  # words that nobody has a time for are no words with times
        return text if any(word.stop for word in text.words) else text._replace(words=None)
    words = zip(text.words, edges, strict=True)
    return text._replace(words=tuple(word._replace(start=start, stop=stop) for word, (start, stop) in words))
