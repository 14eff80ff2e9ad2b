"""An exponential moving average of the weights (EMA), and the learning-rate schedule.

Source: Polyak and Juditsky 1992; Tarvainen and Valpola 2017 (arXiv:1703.01780) for its use as a teacher.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

FINAL_SHARE = 0.05
"""Of the highest rate, at the end of a tri-stage schedule, as fairseq's wav2vec 2.0 recipes have it."""


def rate_share(kind: str, update: int, num_updates: int, warmup: int, hold_ratio: float) -> float:
    """Share of the highest learning rate at an update from 0 on; above 0 everywhere.

    `warmup`: updates in which it rises.

    >>> [round(rate_share("tri-stage", n, 100, 10, 0.4), 3) for n in (0, 9, 49, 99)]
    [0.1, 1.0, 1.0, 0.053]
    """
    if update < warmup:
        return (update + 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        done = (update - warmup) / max(1, num_updates - warmup)
        return 0.5 * (1 + math.cos(math.pi * done))
    hold_until = warmup + int(hold_ratio * num_updates)
    if update < hold_until:
        return 1.0
    done = (update - hold_until) / max(1, num_updates - hold_until)
    return float(FINAL_SHARE**done)


class EmaWeights:
    """Average of a model's floating-point parameters and buffers.

    Args:
        model: whose weights are averaged.
        decay: share of the average that stays at each update; smaller in the first updates.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self._decay, self._count = decay, 0
        self._values = {name: value.detach().clone() for name, value in _floats(model).items()}

    def add(self, model: Any) -> None:
        """Takes the model's weights after an update."""
        self._count += 1
        decay = min(self._decay, (1 + self._count) / (10 + self._count))
        for name, value in _floats(model).items():
            self._values[name].lerp_(value.detach(), 1 - decay)

    def give_to(self, model: Any) -> None:
        model.load_state_dict({**model.state_dict(), **self._values})

    def state(self) -> dict[str, Any]:
        return {"count": self._count, "values": self._values}

    def load(self, state: dict[str, Any]) -> None:
        self._count, self._values = state["count"], state["values"]


def _floats(model: Any) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if torch.is_floating_point(value)}
