"""What `audiomill.models.frames.model` needs to know of one of transformers' models: what it is fed, and where its layers are.

B batch, F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Parity
from audiomill.models.vectors.readout import CoreFrames


class Feed(Protocol):
    """Waveforms -> what a model takes, padded so that rows do not see each other, and how long each row is.

    `hop`: samples from one frame to the next, `text_hop`: at the CTC head.
    """

    hop: int

    @property
    def text_hop(self) -> int: ...

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> dict[str, Tensor]:
        """Keyword arguments of the model's forward pass, for int16 rows at 16 kHz."""
        ...

    def hop_of(self, layer: int | None) -> int:
        """Samples from one frame of a hidden state to the next; None: where the model does not say."""
        ...

    def frames_B(self, layer: int | None = None) -> Tensor:  # noqa: N802
        """Frames of each row of the last batch in a hidden state."""
        ...

    def text_frames_B(self) -> Tensor:  # noqa: N802
        """Frames of each row of the last batch at the head."""
        ...


@dataclass(frozen=True, kw_only=True)
class FrameNetwork:
    """A model on its device, in evaluation mode.

    Attributes:
        model: gives `logits` where it has a CTC head.
        body: what to run where no text is wanted.
        stack: has the `layers` that hidden states are counted by.
        feed: waveforms -> its keyword arguments.
        parity: compares one segment with transformers' own processor and model.
        final_norm: behind the last layer, where hidden state N is what leaves it.
        convolutions: its inputs -> what enters its `feature_projection`; None for models without.
    """

    model: Any
    body: Any
    stack: Any
    feed: Feed
    parity: Callable[[Segment], Parity]
    final_norm: Any | None = None
    convolutions: Callable[[dict[str, Tensor]], Any] | None = None


def cores(batch: Sequence[Segment], feed: Feed, device: torch.device) -> Callable[[int | None], CoreFrames]:
    """The frames of a hidden state that lie in the segments of the last batch themselves; layers may differ in their clock."""

    @cache
    def core(layer: int | None) -> CoreFrames:
        return CoreFrames(batch, feed.frames_B(layer).tolist(), feed.hop_of(layer), device)

    return core
