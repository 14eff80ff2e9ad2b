"""Samples of different lengths -> one padded batch with its mask.

B batch, F frames, D width, K codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch


class Batch(NamedTuple):
    """`values`: B first, zeros behind each sample's end; `mask_BF`: True where a frame is real, None for pooled vectors,
    which have no frames; `columns`: what was asked for by `columns=`, a list each."""

    ids: list[str]
    values: torch.Tensor
    mask_BF: torch.Tensor | None
    columns: dict[str, list[Any]]


def collated(samples: Sequence[Any], time_axis: int | None) -> Batch:
    """Pads and stacks samples of `audiomill.open_output`.

    Args:
        samples: (id, array), or (id, array, columns).
        time_axis: along which arrays differ in length; None: they do not.
    """
    ids, arrays = [sample[0] for sample in samples], [sample[1] for sample in samples]
    metadata = [sample[2] if len(sample) > 2 else {} for sample in samples]
    columns = {name: [each[name] for each in metadata] for name in metadata[0]} if metadata else {}
    if time_axis is None:
        return Batch(ids, torch.from_numpy(_stackable(np.stack(arrays))), None, columns)
    lengths = [array.shape[time_axis] for array in arrays]
    padded = []
    for array, length in zip(arrays, lengths, strict=True):
        widths = [(0, 0)] * array.ndim
        widths[time_axis] = (0, max(lengths) - length)
        padded.append(np.pad(array, widths))
    mask_BF = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Batch(ids, torch.from_numpy(_stackable(np.stack(padded))), mask_BF, columns)


def _stackable(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """torch has few operations on unsigned 16 bits: codes become 32-bit integers."""
    return values.astype(np.int32) if values.dtype == np.uint16 else values
