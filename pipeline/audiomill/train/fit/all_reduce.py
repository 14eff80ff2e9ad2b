"""Numbers and gradients, summed over the workers of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from audiomill.train.fit.worker import Worker


def all_reduce_sum(worker: Worker, *values: float) -> list[float]:
    """Of all workers."""
    if worker.size == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=worker.device)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor]


def sum_gradients(worker: Worker, parameters: Sequence[Any]) -> None:
    """Sums gradients over the workers in one go. Plain all-reduce instead of DistributedDataParallel: weights that are frozen for a
    while, and rows that not every worker has, need no special care. A weight that no worker's rows touched has no gradient, as in one
    process."""
    touched = all_reduce_sum(worker, *(float(parameter.grad is not None) for parameter in parameters))
    chosen = [each for each, by in zip(parameters, touched, strict=True) if by]
    flat = torch.cat([(torch.zeros_like(each) if each.grad is None else each.grad).flatten() for each in chosen])
    dist.all_reduce(flat)
    for each, part in zip(chosen, torch.split(flat, [each.numel() for each in chosen]), strict=True):
        each.grad = part.view_as(each).clone()
