"""What a checkpoint's config tells without loading weights: width, layers, frame clock, quantizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

BERT_HOP = 320
WHISPER_HOP = 320


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`hop`: samples from one frame to the next, `text_hop`: at the CTC head; `num_layers`: of the encoder, so hidden states 0 to num_layers exist;
    `layer_names`: other names of layers; `other_widths`: of layers that differ from `width`; `quantizer`: (codebooks, entries of each) or None."""

    width: int
    num_layers: int
    hop: int
    text_hop: int = 0
    layer_names: tuple[str, ...] = ()
    quantizer: tuple[int, int] | None = None
    other_widths: Mapping[int, int] = field(default_factory=dict)

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


def shape_of_family(folder: Path, has_quantizer: bool) -> Shape:
    """Of a wav2vec2-family folder; configs hold what differs from the family's defaults, so transformers reads them."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    hop = BERT_HOP if config.model_type == "wav2vec2-bert" else prod(config.conv_stride)
    quantizer = (config.num_codevector_groups, config.num_codevectors_per_group) if has_quantizer else None
    depth = config.num_adapter_layers if getattr(config, "add_adapter", False) else 0
    text_hop = hop * config.adapter_stride**depth if depth else hop
    return Shape(
        width=config.hidden_size, num_layers=config.num_hidden_layers, hop=hop, text_hop=text_hop, quantizer=quantizer
    )


def shape_of_whisper(folder: Path) -> Shape:
    """Of a Hugging Face Whisper folder."""
    config = json.loads((folder / "config.json").read_text())
    return Shape(width=config["d_model"], num_layers=config["encoder_layers"], hop=WHISPER_HOP)
