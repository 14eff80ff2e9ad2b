"""Which frames are hidden from the model while it learns. B batch, F frames.

Source: SpecAugment (arXiv:1904.08779) as wav2vec 2.0 uses it: spans that start anywhere and may overlap. Ours are
shorter where a clip is short, which Hugging Face's refuse.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_SPAN_SHARE = 0.25
"""Longest span, as a share of the clip."""


def span_mask(
    num_frames: Sequence[int],
    width: int,
    start_share: float,
    span: int,
    random: np.random.Generator,
    min_spans: int = 0,
) -> NDArray[np.bool_]:
    """mask_BF: True where a frame is hidden.

    Args:
        num_frames: of each row.
        width: F, of the batch.
        start_share: share of the frames that start a span.
        span: frames a span, less in short rows.
        random: where chance comes from.
        min_spans: at least so many a row.
    """
    mask_BF = np.zeros((len(num_frames), width), bool)
    for row, frames in enumerate(num_frames):
        length = max(1, min(span, int(MAX_SPAN_SHARE * frames)))
        count = max(min_spans, int(start_share * frames * span / length + random.random()))
        room = max(1, frames - length + 1)
        for start in random.choice(room, min(count, room), replace=False).tolist():
            mask_BF[row, start : start + length] = True
    return mask_BF


@contextlib.contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Hugging Face draws masks of features from numpy's global generator: inside, they are a function of `seed`."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
