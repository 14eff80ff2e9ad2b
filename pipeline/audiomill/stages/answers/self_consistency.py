"""How much of a text stays when its segment is heard again, a little changed: a sign of doubt that needs no reference.

Source: the idea of consistency under perturbation, e.g. Xie et al. 2019 (arXiv:1904.12848).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.perturb import at_speed, in_noise
from audiomill.models.base import Transcript, Utterance
from audiomill.text.scripts import units
from audiomill.text.wer import word_edits

Hear = Callable[[Sequence[Utterance]], Sequence[Transcript | None]]
CHANGES: tuple[Callable[[NDArray[np.int16]], NDArray[np.int16]], ...] = (
    lambda pcm_T: at_speed(pcm_T, 1.1),
    lambda pcm_T: at_speed(pcm_T, 0.9),
    lambda pcm_T: in_noise(pcm_T, 15.0, np.random.default_rng(1)),
    lambda pcm_T: at_speed(in_noise(pcm_T, 20.0, np.random.default_rng(2)), 1.05),
    lambda pcm_T: at_speed(in_noise(pcm_T, 20.0, np.random.default_rng(3)), 0.95),
)
"""A function of the samples alone, so that batches do not matter."""


def with_self_consistency(
    utterances: Sequence[Utterance], texts: Sequence[Transcript | None], times: int, hear: Hear
) -> list[Transcript | None]:
    """The transcripts with their `self_consistency`: 1 - word errors of what is heard again, mean over the changes, 0 at least.

    Args:
        utterances: what was heard.
        texts: what was written.
        times: how many changes.
        hear: writes down changed utterances.
    """
    scores = np.zeros((times, len(utterances)))
    for number, change in enumerate(CHANGES[:times]):
        perturbed = hear([_changed(utterance, change) for utterance in utterances])
        for at, (text, other) in enumerate(zip(texts, perturbed, strict=True)):
            if text is not None and other is not None:
                words = units(text.text)
                edits = word_edits(words, units(other.text))
                scores[number, at] = max(0.0, 1 - edits / max(1, len(words)))
    means = scores.mean(0).tolist()
    return [
        None if text is None else text._replace(self_consistency=mean) for text, mean in zip(texts, means, strict=True)
    ]


def _changed(utterance: Utterance, change: Callable[[NDArray[np.int16]], NDArray[np.int16]]) -> Utterance:
    """The segment without its context, changed."""
    pcm_T = change(utterance.pcm_T[utterance.left : len(utterance.pcm_T) - utterance.right])
    return utterance._replace(pcm_T=pcm_T, left=0, right=0)
