"""What a learner writes of clips, and how well."""

from __future__ import annotations

from typing import NamedTuple

from audiomill.models.learner import Learner
from audiomill.text.wer import NO_ERRORS, score_pair
from audiomill.train.clips import Clips
from audiomill.train.fit.batches import evaluation_batches

_MOST_SAMPLES = 8


class Evaluation(NamedTuple):
    """Word error rate on clips with text, and what was written of some: (reference, hypothesis)."""

    wer: float
    samples: tuple[tuple[str, str], ...]


def evaluated(learner: Learner, clips: Clips, budget: int, language: str | None) -> Evaluation:
    """How well a learner writes clips with text."""
    errors = NO_ERRORS
    references = clips.labelled_texts(language)
    texts = transcribe_clips(learner, clips, budget, language)
    for reference, hypothesis in zip(references, texts, strict=True):
        errors += score_pair(reference.text, hypothesis, reference.language)[0]
    shown = range(0, len(texts), max(1, -(-len(texts) // _MOST_SAMPLES)))
    return Evaluation(errors.rate, tuple((clips.texts[at], texts[at]) for at in shown))


def transcribe_clips(learner: Learner, clips: Clips, budget: int, language: str | None) -> list[str]:
    """What a learner writes of each clip; `language`: of those that name none."""
    learner.model.eval()
    languages = [labelled_text.language for labelled_text in clips.labelled_texts(language)]
    result = [""] * len(clips)
    for picked in evaluation_batches(clips.num_samples, budget):
        texts = learner.transcripts(
            [clips.pcm(index) for index in picked.tolist()], [languages[index] for index in picked.tolist()]
        )
        for index, text in zip(picked.tolist(), texts, strict=True):
            result[index] = text
    return result
