"""Small codecs with random weights, laid out as `save_pretrained` writes those of the hub."""

from __future__ import annotations

import math
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
    hop_length = math.prod(model.config.downsampling_ratios)
    DacFeatureExtractor(sampling_rate=model.config.sampling_rate, hop_length=hop_length).save_pretrained(folder)
    return folder


def save_dac_44(folder: Path, seed: int = 0) -> Path:
    """As the one of 44.1 kHz: a step of 512 samples, which no grid of whole milliseconds holds."""
    return save_dac(folder, seed, sampling_rate=44_100, downsampling_ratios=[2, 4, 8, 8])


def save_encodec(folder: Path, seed: int = 0, **other: Any) -> Path:
    """EnCodec of 24 kHz; its codebooks are what its encoder makes of noise."""
    import torch
    from transformers import EncodecConfig, EncodecFeatureExtractor, EncodecModel

    torch.manual_seed(seed)
    small = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "target_bandwidths": [0.9, 1.8]}
    config = EncodecConfig(**{**small, **other})
    model = EncodecModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():  # what is the same in every frame would hide what is not
            if name.endswith("bias"):
                weight.zero_()
        sound = torch.randn(1, config.audio_channels, config.sampling_rate)
        hidden_FD = model.encoder(0.1 * sound)[0].T
        for number, layer in enumerate(model.quantizer.layers):
            picked = hidden_FD[torch.randperm(len(hidden_FD))[:64]]
            layer.codebook.embed.copy_(picked if number == 0 else 0.5 * (picked - picked.mean(0)))
    model.save_pretrained(folder)
    EncodecFeatureExtractor(
        feature_size=config.audio_channels,
        sampling_rate=config.sampling_rate,
        chunk_length_s=config.chunk_length_s,
        overlap=config.overlap,
    ).save_pretrained(folder)
    return folder


def save_encodec_48(folder: Path, seed: int = 0) -> Path:
    """As the one of 48 kHz: two channels, in chunks of a second with their own loudness."""
    chunks = {"normalize": True, "chunk_length_s": 1.0, "overlap": 0.01, "norm_type": "time_group_norm"}
    return save_encodec(folder, seed, sampling_rate=48_000, audio_channels=2, use_causal_conv=False, **chunks)


def save_mimi(folder: Path, seed: int = 0) -> Path:
    import torch
    from transformers import EncodecFeatureExtractor, MimiConfig, MimiModel

    torch.manual_seed(seed)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    config = MimiConfig(
        **heads, num_filters=4, hidden_size=32, num_hidden_layers=2, intermediate_size=48, codebook_dim=16, codebook_size=64,
        vector_quantization_hidden_dimension=16, upsample_groups=32, sliding_window=50, num_quantizers=4,
    )  # fmt: skip
    model = MimiModel(config).eval()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("embed_sum"):
                buffer.normal_(0, 2)
    model.save_pretrained(folder)
    EncodecFeatureExtractor(sampling_rate=24_000).save_pretrained(folder)
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


CODECS: dict[str, Callable[..., Path]] = {
    "dac": save_dac,
    "dac-44": save_dac_44,
    "encodec": save_encodec,
    "encodec-48": save_encodec_48,
    "mimi": save_mimi,
    "xcodec": save_xcodec,
}
