"""Weights and outputs must be numbers: what is not stops the job, because it says nothing of the audio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiomill.errors import ModelError, RunError


def not_finite(what: str) -> RunError:
    """The error of a model that gives values that are not finite.

    Args:
        what: the first tensor that has them.
    """
    return RunError(
        f"the model gives values that are not finite, first at {what}; "
        "expected numbers: run again with --precision fp32, or take another checkpoint"
    )


def check_weights(model: Any, folder: Path) -> None:
    """Raises ModelError for weights that are not finite, with the first one's name.

    Args:
        model: a torch module.
        folder: it came from.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not is_finite(tensor):
            raise ModelError(f"{folder}: {name} holds values that are not finite; take a whole checkpoint")


def is_finite(values: Tensor) -> bool:
    """One sum tells it, four times as fast, unless the sum overflows."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def first_not_finite(model: torch.nn.Module, forward: Callable[[], object]) -> str | None:
    """Name of the first module whose output is not finite.

    Args:
        model: whose modules are watched.
        forward: runs it.
    """
    results: list[str] = []

    def watch(name: str) -> Callable[[Any, Any, Any], None]:
        def look(_module: Any, _given: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor) and first.is_floating_point() and not is_finite(first):
                results.append(name)

        return look

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return results[0] if results else None
