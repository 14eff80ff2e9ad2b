"""One of the processes that train together."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Worker:
    """One of `size` processes that train together; the one of rank 0 evaluates, saves and speaks."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0
