"""The convolutions over the waveform of wav2vec2-like models as products in bf16, of one row at a time.

They are as much work as the transformer of a base model, and 8 bits would need a scale for each window of them; bf16 products
need none and are four times as fast as float ones. Frames lie side by side (F x C), so the windows of a convolution are rows
of one matrix that share memory.

T samples, F frames, C channels, K kernel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own habit)
from torch import Tensor, nn

from audiomill.models.device import one_thread
from audiomill.models.frames.exact import MaskedGroupNorm


def with_bf16_convolutions(base: Any) -> None:
    """Replaces the convolutions of a wav2vec2-like base model, those that give frames their positions too, in place."""
    if hasattr(base, "feature_extractor"):
        base.feature_extractor = Bf16Convolutions(base.feature_extractor)
    if hasattr(base.encoder, "pos_conv_embed"):
        base.encoder.pos_conv_embed = InBf16(base.encoder.pos_conv_embed)


class Bf16Convolutions(nn.Module):
    """In place of the `feature_extractor` of a wav2vec2-like model; gives about what it gives.

    Args:
        extractor: transformers' own, made exact; its first layer may have a norm over time, or every layer one over channels.
    """

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        first, *rest = extractor.conv_layers
        self._first, self._rest = _Layer(first, torch.float32), [_Layer(each, torch.bfloat16) for each in rest]
        self._over_time = norm if isinstance(norm := _norm(first), MaskedGroupNorm) else None

    def forward(self, waveform_1T: Tensor) -> Tensor:
        """input_values -> features_1CF in float32."""
        first = self._first
        windows_FK = waveform_1T[0].float().unfold(0, first.kernel, first.stride).contiguous()
        weight_CK, bias_C = first.weight_CK, first.bias_C
        if self._over_time is not None:
            own_FK = windows_FK[: int(self._over_time.frames_B()[0])]
            weight_CK, bias_C = _normalised_over_time(own_FK, weight_CK, self._over_time)
        x_FC = first.finished(_linear_in_two_parts(windows_FK, weight_CK, bias_C))
        for layer in self._rest:
            x_FC = layer.finished(F.linear(layer.windows(x_FC), layer.weight_CK, layer.bias_C))
        return x_FC.float().T[None]


class InBf16(nn.Module):
    """A module, computed in bf16 between float32 neighbours."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._module(x.bfloat16())
        return out.to(x.dtype)


class _Layer:
    """A convolution as a matrix over windows of frames, with what stands behind it."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        conv, norm = layer.conv, _norm(layer)
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.weight_CK = conv.weight.detach().permute(0, 2, 1).flatten(1).to(dtype).contiguous()
        bias = conv.bias if conv.bias is not None else torch.zeros_like(conv.weight[:, 0, 0])
        self.bias_C = bias.detach().to(dtype)
        self._norm = norm.to(torch.bfloat16) if isinstance(norm, nn.LayerNorm) else None
        self._activation = layer.activation

    def windows(self, x_FC: Tensor) -> Tensor:
        """Every window of frames as a row, without copying."""
        frames, channels = x_FC.shape
        count = (frames - self.kernel) // self.stride + 1
        return x_FC.as_strided((count, self.kernel * channels), (self.stride * channels, 1))

    def finished(self, x_FC: Tensor) -> Tensor:
        """Norm over channels, where there is one, and activation, in bf16."""
        x_FC = x_FC.bfloat16()
        out: Tensor = self._activation(x_FC if self._norm is None else self._norm(x_FC))
        return out


def _linear_in_two_parts(x_FK: Tensor, weight_CK: Tensor, bias_C: Tensor) -> Tensor:
    """x weight' + bias of float32 by a product in bf16: a waveform has more digits than bf16, so each number is the sum of two."""
    (x, x_rest), (weight, weight_rest) = _in_two_parts(x_FK), _in_two_parts(weight_CK)
    return F.linear(torch.cat([x, x_rest, x], 1), torch.cat([weight, weight, weight_rest], 1), bias_C.bfloat16())


def _in_two_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    coarse = x.bfloat16()
    return coarse, (x - coarse.float()).bfloat16()


def _norm(layer: Any) -> Any | None:
    return getattr(layer, "layer_norm", None)


def _normalised_over_time(windows_FK: Tensor, weight_CK: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that give what the group norm behind it, of a channel a group, would make of its
    outputs.

    What a channel's mean and variance over time are follows from those of the windows, which are a thousand times fewer
    numbers than the outputs. In double and on one thread: sums must not depend on the number of cores.
    """
    with one_thread():
        windows = windows_FK.double()
        mean_K = windows.mean(0)
        centred = windows - mean_K
        covariance_KK = centred.T @ centred / len(windows)
    weight = weight_CK.double()
    variance_C = ((weight @ covariance_KK) * weight).sum(1).clamp(min=0.0)
    gain_C = torch.rsqrt(variance_C + norm.eps)
    shift_C = -(weight @ mean_K) * gain_C  # the convolution's own bias goes with the mean
    if norm.affine:
        gain_C, shift_C = gain_C * norm.weight.double(), shift_C * norm.weight.double() + norm.bias.double()
    return (weight * gain_C[:, None]).float(), shift_C.float()
