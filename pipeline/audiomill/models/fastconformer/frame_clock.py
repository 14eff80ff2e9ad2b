"""Width, layers and frame clock of checkpoints with a FastConformer, from their configuration."""

from __future__ import annotations

from pathlib import Path

from audiomill.models.task import Shape

MEL_HOP = 160


def fastconformer_shape(path: Path) -> Shape:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    encoder = getattr(config, "encoder_config", config)
    hop = MEL_HOP * encoder.subsampling_factor
    return Shape(width=encoder.hidden_size, num_layers=encoder.num_hidden_layers, hop=hop, text_hop=hop)
