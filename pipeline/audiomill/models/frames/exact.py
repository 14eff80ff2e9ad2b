"""Batch invariance of wav2vec2-family models: each row of a batch gives what it gives alone.

Hugging Face's forward pass lets padding leak into results in five places: the group normalisation over time
of the first convolution (wav2vec2-base, hubert-base, WavLM-base: hidden states half wrong), the stacked
positional convolutions of data2vec, the batch normalisation before those of some HuBERTs (mHuBERT-147), and the
convolutions of adapters. Each is given a mask here. What
remains is the rounding of sums.

B batch, C channels, F frames.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class RowLengths:
    """Lengths of the rows of the batch that is being computed; the masked modules look here."""

    def __init__(self) -> None:
        self.samples_B: Tensor = torch.zeros(0, dtype=torch.long)
        self.frames_B: Tensor = torch.zeros(0, dtype=torch.long)


class MaskedGroupNorm(nn.GroupNorm):
    """Group normalisation behind a convolution, its statistics over each row's own frames only. Has the parameters of the
    one that it replaces, under the same names: a checkpoint that is saved with it in place is an ordinary one."""

    def __init__(self, norm: nn.GroupNorm, kernel: int, stride: int, lengths: RowLengths) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
        self.weight, self.bias = norm.weight, norm.bias
        self._kernel, self._stride, self._lengths = kernel, stride, lengths

    def frames_B(self) -> Tensor:  # noqa: N802
        """Frames of each row behind its convolution."""
        return (self._lengths.samples_B - self._kernel) // self._stride + 1

    def forward(self, x_BCF: Tensor) -> Tensor:
        return group_norm_over_own_frames(x_BCF, self.frames_B(), self)


def group_norm_over_own_frames(x_BCF: Tensor, frames_B: Tensor, norm: Any) -> Tensor:
    """The `nn.GroupNorm` `norm`, with the statistics of each row taken over its first `frames_B` frames only.

    Works in place where it can: these are the largest tensors of a model, and each pass over them costs.
    """
    if bool((frames_B == x_BCF.shape[-1]).all()):
        return nn.functional.group_norm(x_BCF, norm.num_groups, norm.weight, norm.bias, norm.eps)
    batch, channels, frames = x_BCF.shape
    mask_BF = frame_mask(frames_B, frames)
    x = x_BCF.float()
    groups = norm.num_groups
    count_BG1 = (frames_B * (channels // groups))[:, None, None].float()
    sums_BC1 = torch.bmm(x, mask_BF.float()[:, :, None])
    mean_BG1 = sums_BC1.view(batch, groups, -1).sum(-1, keepdim=True) / count_BG1
    x = x.sub_(mean_BG1.repeat_interleave(channels // groups, 1)).masked_fill_(~mask_BF[:, None], 0.0)
    power_BC = torch.linalg.vector_norm(x, dim=-1).square()
    variance_BG1 = power_BC.view(batch, groups, -1).sum(-1, keepdim=True) / count_BG1
    scale_BC1 = torch.rsqrt(variance_BG1 + norm.eps).repeat_interleave(channels // groups, 1)
    if norm.affine:
        return torch.addcmul(norm.bias[:, None].float(), x, scale_BC1 * norm.weight[:, None]).to(x_BCF.dtype)
    return (x * scale_BC1 if torch.is_grad_enabled() else x.mul_(scale_BC1)).to(x_BCF.dtype)


def frame_mask(lengths_B: Tensor, num_frames: int) -> Tensor:
    """mask_BF: True inside each row's own frames."""
    return torch.arange(num_frames, device=lengths_B.device) < lengths_B[:, None]


def make_exact(base: Any) -> RowLengths:
    """Puts masks into a wav2vec2-family base model, in place.

    Args:
        base: `Wav2Vec2Model`, `HubertModel`, `WavLMModel`, `Data2VecAudioModel` or `Wav2Vec2BertModel`.

    Returns:
        Where the lengths must be put before each forward pass.
    """
    lengths = RowLengths()
    config = base.config
    if getattr(config, "feat_extract_norm", "layer") == "group":
        first = base.feature_extractor.conv_layers[0]
        first.layer_norm = MaskedGroupNorm(first.layer_norm, config.conv_kernel[0], config.conv_stride[0], lengths)
    if config.model_type == "data2vec-audio":
        for layer in base.encoder.pos_conv_embed.layers:
            layer.register_forward_hook(
                lambda _module, _args, out: out * frame_mask(lengths.frames_B, out.shape[-1])[:, None]
            )
    if getattr(config, "conv_pos_batch_norm", False):  # what was zero behind a row's end is not, once normalised
        base.encoder.pos_conv_embed.batch_norm.register_forward_hook(
            lambda _module, _args, out: out * frame_mask(lengths.frames_B, out.shape[-1])[:, None]
        )
    if getattr(base, "adapter", None) is not None:
        _mask_adapter(base.adapter, config, lengths)
    return lengths


def with_plain_weights(model: nn.Module) -> None:
    """Computes normalised weights (of the positional convolution) once instead of at every forward pass, in place."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name)


def adapter_frames(frames_B: Tensor, config: Any, depth: int) -> Tensor:
    """Frames of each row after `depth` layers of the model's adapter."""
    for _ in range(depth):
        padding = config.adapter_kernel_size // 2 if config.model_type == "wav2vec2-bert" else 1
        frames_B = (frames_B + 2 * padding - config.adapter_kernel_size) // config.adapter_stride + 1
    return frames_B


def _mask_adapter(adapter: Any, config: Any, lengths: RowLengths) -> None:
    """Every convolution of an adapter sees zeros behind a row's end, as it does alone."""
    for depth, layer in enumerate(adapter.layers):

        def masked_input(module: nn.Module, args: tuple[Tensor, ...], depth: int = depth) -> tuple[Tensor, ...]:
            x_BCF = args[0]
            return (
                x_BCF * frame_mask(adapter_frames(lengths.frames_B, config, depth), x_BCF.shape[-1])[:, None],
                *args[1:],
            )

        for conv in (
            module
            for module in layer.modules()
            if isinstance(module, nn.Conv1d) and module.stride[0] == config.adapter_stride
        ):
            conv.register_forward_pre_hook(masked_input)
