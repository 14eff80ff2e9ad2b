"""From frozen features to tokens.

B batch, F frames, E width of the features, V tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.audio.cutting.segment import Segment
from audiomill.models.vectors.frozen_encoder import FrozenEncoder

LAYERS = 2
"""Recurrent ones, as in SUPERB (arXiv:2105.01051)."""


class FeatureHead(nn.Module):
    """Norm, recurrent layers where there are any, and a linear layer over tokens.

    Args:
        width: E.
        hidden: of each direction of the recurrent layers; 0: none.
        vocab_size: V.
        dropout: of what enters the last layer.
    """

    def __init__(self, width: int, hidden: int, vocab_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.recurrent = nn.LSTM(width, hidden, LAYERS, batch_first=True, bidirectional=True) if hidden else None
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(2 * hidden if hidden else width, vocab_size)

    def forward(self, frames_BFE: Tensor, frames_B: Tensor) -> Tensor:
        """logits_BFV; rows do not see each other's padding."""
        hidden = self.norm(frames_BFE)
        if self.recurrent is not None:
            packed = nn.utils.rnn.pack_padded_sequence(hidden, frames_B.cpu(), batch_first=True, enforce_sorted=False)
            hidden, _ = nn.utils.rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        out: Tensor = self.out(self.dropout(hidden))
        return out


class FeatureFeed:
    """See `audiomill.models.frames.frame_network.Feed`: rows go to the encoder as they are.

    Args:
        encoder: frozen.
        hop: samples from one frame to the next.
        device: of the head.
    """

    def __init__(self, encoder: FrozenEncoder, hop: int, device: torch.device) -> None:
        self._encoder, self.hop, self._device = encoder, hop, device
        self._frames_B = torch.zeros(0, dtype=torch.long)

    @property
    def text_hop(self) -> int:
        return self.hop

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> dict[str, Tensor]:
        """frames_BFE of a batch, and how many each row has."""
        frames = self._encoder.frames([Segment(row, 0, 0, ("", None), 0, None) for row in rows])
        some = [
            frame if len(frame) else frame.new_zeros(1, frame.shape[1]) for frame in frames
        ]  # a row too short for a frame
        self._frames_B = torch.tensor([len(each) for each in some], device=self._device)
        frames_BFE = nn.utils.rnn.pad_sequence([each.float() for each in some], batch_first=True).to(self._device)
        return {"frames_BFE": frames_BFE, "frames_B": self._frames_B}

    def hop_of(self, layer: int | None) -> int:
        return self.hop

    def frames_B(self, layer: int | None = None) -> Tensor:  # noqa: N802
        return self._frames_B

    def text_frames_B(self) -> Tensor:  # noqa: N802
        return self._frames_B


class HeadAlone(nn.Module):
    """A head as `audiomill.models.frames.model` runs it: rows alone, as a product's last bits depend on how many it has."""

    def __init__(self, head: FeatureHead) -> None:
        super().__init__()
        self.head, self.layers = head, nn.ModuleList()

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    def forward(self, frames_BFE: Tensor, frames_B: Tensor) -> Any:
        """Has `logits`."""
        rows = [
            self.head(frames_BFE[row : row + 1, :count], frames_B[row : row + 1])[0]
            for row, count in enumerate(frames_B.tolist())
        ]
        return SimpleNamespace(logits=nn.utils.rnn.pad_sequence(rows, batch_first=True))
