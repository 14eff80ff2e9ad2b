"""What a checkpoint's config tells without loading weights: width, layers, frame clock, quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`hop`: samples from one frame to the next, `text_hop`: at the CTC head; `num_layers`: of the encoder, so hidden states 0 to num_layers exist;
    `layer_names`: other names of layers; `other_widths`: of layers that differ from `width`; `quantizer`: (codebooks, entries of each) or None;
    `hops`: of hidden states that differ from `hop`."""

    width: int
    num_layers: int
    hop: int
    text_hop: int = 0
    layer_names: tuple[str, ...] = ()
    quantizer: tuple[int, int] | None = None
    other_widths: Mapping[int, int] = field(default_factory=dict)
    hops: Mapping[int, int] = field(default_factory=dict)

    def width_of(self, layer: int) -> int:
        """Values of a vector of hidden state `layer`."""
        return self.other_widths.get(layer, self.width)


def receptive_field(config: Any) -> int:
    """Samples that one frame of the convolutions sees."""
    size, step = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        size += (kernel - 1) * step
        step *= stride
    return size
