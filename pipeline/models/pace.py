"""Which precision of matrix products suits the CPU at hand: measured, in a tenth of a second."""

from __future__ import annotations

import time
from functools import cache

import torch

from pipeline.models.projection import Projection, projection

ROWS, WIDTH, WIDE = 500, 384, 1536
"""Ten seconds of audio in the wide layer of Whisper tiny."""
NUM_TIMES = 15
MIN_GAIN = 1.7
"""Less is not worth the rounding. Measured: 3 to 5 with VNNI."""


@cache
def fastest_precision() -> str:
    """int8 or bf16 where they are at least `MIN_GAIN` times as fast as fp32 on this CPU, int8 first; else fp32.

    int8 comes first because it gives a row the same numbers whatever its batch.
    """
    weight, x, threads = torch.randn(WIDE, WIDTH), torch.randn(ROWS, WIDTH), torch.get_num_threads()
    torch.set_num_threads(1)  # a neighbour on another core does not count then
    seconds = {each: _seconds(projection(weight, None, each), x) for each in ("fp32", "bf16", "int8")}
    torch.set_num_threads(threads)
    for each in ("int8", "bf16"):
        if seconds["fp32"] >= MIN_GAIN * seconds[each]:
            return each
    return "fp32"


def _seconds(product: Projection, x: torch.Tensor) -> float:
    """The least of some times: what else runs can only add."""
    times = []
    for _ in range(NUM_TIMES):
        began = time.perf_counter()
        product(x)
        times.append(time.perf_counter() - began)
    return min(times)
