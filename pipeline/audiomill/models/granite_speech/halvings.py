"""The clock of each hidden state: some layers halve the rate."""

from __future__ import annotations

from typing import Any

MEL_HOP, STACKED = 160, 2
"""Samples from one mel frame to the next, and mel frames a frame of the encoder's input."""


def hops(encoder: Any) -> list[int]:
    """Samples from one frame to the next in each hidden state: some layers halve the rate."""
    results = [MEL_HOP * STACKED]
    for layer in range(encoder.num_hidden_layers):
        results.append(results[-1] * (2 if layer in encoder.subsample_layers else 1))
    return results
