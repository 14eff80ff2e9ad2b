"""How much memory Whisper needs, from its shapes, and so how many rows may be decoded at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

MAX_POSITIONS = 448
ENCODER_WIDTHS = 16
"""Activations of an encoder layer at its widest, in model widths a frame: input, norm, qkv, attention, four times wider
layer before and behind its nonlinearity."""
LOGIT_COPIES = 6
"""Of a step: logits in two types, masked, their logarithms of probabilities."""


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Of a checkpoint; `value_bytes`: of an activation."""

    width: int
    decoder_layers: int
    vocabulary: int
    value_bytes: int

    def row_bytes(self, frames: int, positions: int = MAX_POSITIONS) -> int:
        """A row of the decoder: what it looks at, what it remembers, its logits, and the output of the encoder."""
        remembered = 2 * self.decoder_layers * (frames + positions) * self.width * self.value_bytes
        return remembered + LOGIT_COPIES * 4 * self.vocabulary + frames * self.width * self.value_bytes

    def encoder_bytes(self, num_frames: int) -> int:
        """Activations of so many frames in the encoder, and what the decoder is given of them."""
        widths = ENCODER_WIDTHS + 2 * self.decoder_layers
        return widths * num_frames * self.width * self.value_bytes


def shapes_of(model: Any) -> Shapes:
    """Of a `WhisperForConditionalGeneration`."""
    config = model.config
    return Shapes(
        width=config.d_model,
        decoder_layers=config.decoder_layers,
        vocabulary=config.vocab_size,
        value_bytes=model.dtype.itemsize,
    )


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # GPU machines may lack it

    return int(psutil.virtual_memory().available)


def rows_that_fit(shapes: Shapes, budget: float, frames: int, encoder_frames: int, most: int) -> int:
    """Rows that may be decoded at a time.

    Args:
        shapes: of the checkpoint.
        budget: bytes.
        frames: longest row, in encoder frames.
        encoder_frames: of an encoder batch, which runs beside.
        most: more do not help.
    """
    left = budget - shapes.encoder_bytes(encoder_frames)
    return max(1, min(most, int(left // shapes.row_bytes(frames))))


def predicted_bytes(shapes: Shapes, num_rows: int, frames: int, encoder_frames: int) -> int:
    """Peak beyond the weights."""
    return num_rows * shapes.row_bytes(frames) + shapes.encoder_bytes(encoder_frames)
