"""Hugging Face draws SpecAugment's masks from numpy's global generator: it is seeded around each forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def masks_drawn_from(seed: int) -> Iterator[None]:
    """The masks inside are a function of `seed`, and nobody else's chance is touched."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
