"""Small codecs with random weights, laid out as `save_pretrained` writes those of the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

DAC = {"encoder_hidden_size": 8, "decoder_hidden_size": 32, "downsampling_ratios": [8, 5, 4, 2], "codebook_size": 32}
HEARING = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


def _spread(model: Any) -> None:
    """Codebooks as wide as what they are searched for: else one entry is nearest to everything."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "codebook" in name or "embed" in name.rsplit(".", 1)[-1]:
                weight.normal_(0, 1)
        for name, buffer in model.named_buffers():
            if name.endswith("embed"):
                buffer.normal_(0, 1)


def save_dac(folder: Path, seed: int = 0, **other: Any) -> Path:
    import torch
    from transformers import DacConfig, DacFeatureExtractor, DacModel

    torch.manual_seed(seed)
    model = DacModel(DacConfig(**{**DAC, "n_codebooks": 4, "codebook_dim": 4, "sampling_rate": 16_000, **other})).eval()
    _spread(model)
    model.save_pretrained(folder)
    DacFeatureExtractor(sampling_rate=other.get("sampling_rate", 16_000), hop_length=320).save_pretrained(folder)
    return folder


def save_xcodec(folder: Path, seed: int = 0, **other: Any) -> Path:
    import torch
    from transformers import DacFeatureExtractor, XcodecConfig, XcodecModel

    torch.manual_seed(seed)
    semantic = {**HEARING, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    acoustic = {**DAC, "upsampling_ratios": [8, 5, 4, 2], "hidden_size": 16}
    config = XcodecConfig(
        acoustic_model_config={"model_type": "dac", **acoustic},
        semantic_model_config={"model_type": "hubert", **semantic},
        codebook_size=32,
        target_bandwidths=[0.25, 0.5, 1.0],
        **other,
    )
    model = XcodecModel(config).eval()
    _spread(model)
    model.save_pretrained(folder)
    DacFeatureExtractor(sampling_rate=16_000, hop_length=320).save_pretrained(folder)
    return folder


CODECS: dict[str, Callable[..., Path]] = {"dac": save_dac, "xcodec": save_xcodec}
