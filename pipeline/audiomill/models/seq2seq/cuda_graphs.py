"""Decoder steps recorded once and replayed: on a GPU the launch of their hundreds of kernels costs more than they do."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch


class CudaGraphRunner:
    """Runs steps of fixed shapes. On CUDA a step that comes again is recorded as a graph and replayed from then on;
    elsewhere it is just run.

    Args:
        device: where the steps run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, Any] = {}
        self._pool: Any = None

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Runs `step`.

        Args:
            key: the same for steps that do the same to the same memory.
            step: tensors of fixed shapes at fixed addresses, nothing that waits for the device.
        """
        if self._device.type != "cuda" or key not in self._graphs:
            step()  # the first time on CUDA, so that libraries set themselves up outside a graph
            self._graphs[key] = None
            return
        if self._graphs[key] is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                step()
            self._pool = self._pool or graph.pool()
            self._graphs[key] = graph
        self._graphs[key].replay()
