"""Log-probabilities of the most probable tokens of each frame, and their 8-bit form.

F frames, V vocabulary, C candidates: the blank first, then the others from the most probable on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_NATS = 20.0
"""What is less probable than e^-20 counts as that."""
LEVELS = 255
FLOOR = -MAX_NATS


class Emissions(NamedTuple):
    """`tokens_FC`: numbers; `logprobs_FC`: natural logarithms."""

    tokens_FC: NDArray[np.int32]
    logprobs_FC: NDArray[np.float32]


def top_tokens(logprobs_FV: NDArray[np.float32], blank: int, count: int) -> Emissions:
    """The blank and the `count` most probable other tokens of each frame; ties go to the smaller number."""
    num_frames, size = logprobs_FV.shape
    others = np.delete(np.arange(size), blank)
    values = logprobs_FV[:, others]
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    at = np.arange(num_frames)[:, None]
    tokens = np.concatenate([np.full((num_frames, 1), blank), others[order]], axis=1)
    return Emissions(tokens.astype(np.int32), logprobs_FV[at, tokens].astype(np.float32))


def concatenate(parts: list[Emissions]) -> Emissions:
    """Frames of several stretches, end to end."""
    return Emissions(
        np.concatenate([part.tokens_FC for part in parts]), np.concatenate([part.logprobs_FC for part in parts])
    )


def narrowed(top: Emissions, count: int) -> Emissions:
    """With `count` tokens beside the blank at most."""
    return Emissions(top.tokens_FC[:, : count + 1], top.logprobs_FC[:, : count + 1])


def quantize_logprobs(logprobs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Steps that are fine near certainty (0.0003 nats) and coarse where it does not matter (0.16)."""
    clipped = np.clip(-logprobs.astype(np.float64), 0.0, MAX_NATS)
    result: NDArray[np.uint8] = np.rint(np.sqrt(clipped / MAX_NATS) * LEVELS).astype(np.uint8)
    return result


def dequantize_logprobs(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = (-MAX_NATS * np.square(levels.astype(np.float64) / LEVELS)).astype(np.float32)
    return result


def dense(top: Emissions, size: int) -> NDArray[np.float32]:
    """logprobs_FV, with the floor for tokens that are not known."""
    result = np.full((len(top.tokens_FC), size), FLOOR, np.float32)
    np.put_along_axis(result, top.tokens_FC.astype(np.int64), top.logprobs_FC, axis=1)
    return result
