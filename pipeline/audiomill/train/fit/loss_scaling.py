"""Loss scaling: steps in 16 bits whose small gradients are not lost; a scale that is too large costs no update. And sums over all workers (all-reduce)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from audiomill.errors import RunError
from audiomill.train.fit.processes import Worker


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


SMALLEST_SCALE = 2.0**-14
"""What overflows below it is no number in any precision."""


def took_step(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer, number: int) -> bool:
    """Takes the step, unless gradients overflowed: then the scale is smaller now, and the update is to be computed again. A lost
    one would make a short training in fp16 another training.

    Args:
        scaler: has unscaled the gradients.
        optimizer: of the weights.
        number: of the update.

    Raises:
        RunError: no scale is small enough.
    """
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    if scaler.get_scale() >= before:
        return True
    if before < SMALLEST_SCALE:
        raise RunError(f"update {number}: gradients are no numbers in fp16; use --precision bf16 or fp32")
    return False
