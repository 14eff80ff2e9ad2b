"""8-bit products in the transformer layers of models of frames; convolutions, attention and heads stay in float."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from audiomill.models.matrix_products import projection


class Int8Linear(nn.Module):
    """Gives about what an `nn.Linear` gives. Each frame has a scale of its own, so its neighbours do not matter."""

    def __init__(self, linear: nn.Linear, precision: str) -> None:
        super().__init__()
        self._product = projection(linear.weight, linear.bias, precision)

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)


def with_int8_layers(stack: Any, precision: str) -> None:
    """Replaces the linear layers of a model's transformer, which has them in `layers`, in place."""
    for layer in stack.layers:
        for parent in list(layer.modules()):
            if hasattr(parent, "gru_rel_pos_linear"):  # WavLM's attention hands its weights to torch
                continue
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, Int8Linear(child, precision))
