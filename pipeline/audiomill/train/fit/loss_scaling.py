"""Steps in 16 bits: losses are scaled so that small gradients are not lost, and a scale that is too large costs no update."""

from __future__ import annotations

import torch

from audiomill.errors import RunError

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
