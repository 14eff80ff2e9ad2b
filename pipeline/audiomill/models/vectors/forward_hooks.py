"""Hidden states as they pass: a forward hook on each layer that is wanted, and nothing computed above them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


class LayerTaps:
    """Keeps hidden states by the numbers that Hugging Face's `hidden_states` has: 0 is what enters the first
    layer, n what leaves the n-th.

    Args:
        layers: the encoder's.
        wanted: numbers to keep.
        final_norm: what comes behind the last layer, where the last hidden state is what leaves it.
    """

    def __init__(self, layers: nn.ModuleList, wanted: Iterable[int], final_norm: nn.Module | None = None) -> None:
        self.hidden: dict[int, Tensor] = {}
        last = len(layers)
        for number in wanted:
            if number == 0:
                layers[0].register_forward_pre_hook(self._keep_input)
            elif number == last and final_norm is not None:
                final_norm.register_forward_hook(self._keeper(number))
            elif number > 0:
                layers[number - 1].register_forward_hook(self._keeper(number))

    def taken(self) -> dict[int, Tensor]:
        """hidden_BFD by number of the last forward pass; gives them away."""
        result, self.hidden = self.hidden, {}
        return result

    def _keep_input(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self.hidden[0] = args[0]

    def _keeper(self, number: int) -> Any:
        def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            self.hidden[number] = output[0] if isinstance(output, tuple) else output

        return keep


def without_layers_above(encoder: Any, top: int) -> None:
    """Drops the layers that nobody wants the output of, in place; at least one stays."""
    encoder.layers = encoder.layers[: max(1, top)]
