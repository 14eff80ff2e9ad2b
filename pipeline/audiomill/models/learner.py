"""What the training loop asks of a kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiomill.text.normalize import Text

Rows = Sequence[NDArray[Any]]
"""pcm_T of each clip of a batch, int16; tokens_L where codes are learnt from."""


class Loss(NamedTuple):
    """Of one batch. `total`: sum over what is counted by `size` (weighted tokens, masked frames); `metrics`: for the log."""

    total: Tensor
    size: float
    metrics: dict[str, float]


class Learner(Protocol):
    """A model that can be trained. Labels are whatever `labels` makes of a text."""

    model: Any
    notes: tuple[str, ...]
    """What its user should know before it learns."""

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[Any]:
        """Of each clip its label, or a string: the reason why it has none."""
        ...

    def set_trainable(self, update: int, num_updates: int) -> None:
        """Sets which weights learn from this update on, and what else depends on how many there will be."""
        ...

    def loss(self, rows: Rows, labels: Sequence[Any], weights: NDArray[np.float32], seed: int) -> Loss:
        """Of one batch; chance comes from `seed` and torch's generator, which is seeded too."""
        ...

    def transcripts(self, rows: Rows, languages: Sequence[str | None]) -> list[str]:
        """What the model writes; the model is in evaluation mode. `languages`: of the rows, where they are known."""
        ...

    def save(self, folder: Path) -> None:
        """Everything that `from_pretrained` and `--model` need."""
        ...
