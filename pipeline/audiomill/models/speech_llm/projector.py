"""What stands between a speech encoder and a language model.

B batch, F frames, E width of the encoder, K frames of a step, S steps, D width of the language model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor, nn


class Projector(nn.Module):
    """K frames side by side -> Linear, RMSNorm, GELU, Linear, RMSNorm -> a step that the language model takes for a token.

    The last norm makes steps as loud as the model's own embeddings: without it they are some thirty times quieter, and the
    model hears its prompt alone.

    Args:
        encoder_width: E.
        stack: K.
        hidden: width inside.
        lm_width: D.
        loudness: root mean square of the language model's embeddings.
    """

    def __init__(self, encoder_width: int, stack: int, hidden: int, lm_width: int, loudness: float = 1.0) -> None:
        super().__init__()
        self._stack = stack
        self.first = nn.Linear(encoder_width * stack, hidden)
        self.first_norm = nn.RMSNorm(hidden, eps=1e-6)
        self.second = nn.Linear(hidden, lm_width)
        self.second_norm = nn.RMSNorm(lm_width, eps=1e-6)
        nn.init.constant_(self.second_norm.weight, loudness)

    def forward(self, frames_BFE: Tensor) -> Tensor:
        """steps_BSD: a last step that is not whole is filled up with zeros; nothing is dropped."""
        padded = F.pad(frames_BFE, (0, 0, 0, -frames_BFE.shape[1] % self._stack))
        stacked = padded.reshape(len(padded), -1, padded.shape[2] * self._stack)
        out: Tensor = self.second_norm(self.second(F.gelu(self.first_norm(self.first(stacked)))))
        return out

    def num_steps(self, frames: int) -> int:
        """S of so many frames."""
        return -(-frames // self._stack)


def loudness_of(embeddings_VD: Tensor) -> float:
    """Root mean square of a language model's embeddings; rows that were never trained (zeros) do not count."""
    rms_V = embeddings_VD.detach().float().pow(2).mean(1).sqrt()
    used = rms_V[rms_V > 0]
    return float(torch.median(used)) if len(used) else 1.0
