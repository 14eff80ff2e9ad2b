"""What a learner writes of clips, and how well."""

from __future__ import annotations

from audiomill.models.learner import Learner
from audiomill.text.wer import NO_ERRORS, score_pair
from audiomill.train.clips import Clips
from audiomill.train.fit.batches import evaluation_batches


def dev_wer(learner: Learner, clips: Clips, budget: int, language: str | None) -> float:
    """Word error rate of a learner on clips with text."""
    errors = NO_ERRORS
    texts = heard(learner, clips, budget)
    for reference, hypothesis in zip(clips.texts, texts, strict=True):
        errors += score_pair(reference, hypothesis, language)[0]
    return errors.rate


def heard(learner: Learner, clips: Clips, budget: int) -> list[str]:
    """What a learner writes of each clip."""
    learner.model.eval()
    found = [""] * len(clips)
    for picked in evaluation_batches(clips.num_samples, budget):
        texts = learner.transcripts([clips.pcm(index) for index in picked.tolist()])
        for index, text in zip(picked.tolist(), texts, strict=True):
            found[index] = text
    return found
