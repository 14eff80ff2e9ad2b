"""wav2vec (2019) and vq-wav2vec (2020): convolutional encoder z, causal aggregator c, and quantizers between them.

Modules carry the names of fairseq's, so its state dicts load as they are.
Sources: arXiv:1904.05862 section 2 and 4.3; arXiv:1910.05453 section 3; fairseq models/wav2vec/wav2vec.py for what
the papers leave open (normalisation, padding, log compression, skip connections).

B batch, T samples, C channels, F frames, K codebooks, V entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from audiomill.models.frames.exact import group_norm_over_own_frames

ConvLayers = tuple[tuple[int, int, int], ...]
"""(channels, kernel, stride) of each layer."""
ACTIVATIONS: dict[str, Any] = {"relu": nn.functional.relu, "gelu": nn.functional.gelu}


@dataclass(frozen=True, kw_only=True)
class Wav2VecSpec:
    """Architecture, by the names that fairseq's arguments have; its defaults."""

    conv_feature_layers: ConvLayers = ((512, 10, 5), (512, 8, 4), (512, 4, 2), (512, 4, 2), (512, 4, 2))
    conv_aggregator_layers: ConvLayers = ((512, 3, 1),) * 9
    activation: str = "relu"
    log_compression: bool = False
    skip_connections_feat: bool = False
    skip_connections_agg: bool = False
    residual_scale: float = 0.5
    non_affine_group_norm: bool = False
    no_conv_bias: bool = False
    agg_zero_pad: bool = False
    vq_type: str = "none"
    vq_vars: int = 320
    vq_groups: int = 2
    vq_dim: int = 0
    vq_depth: int = 1
    combine_groups: bool = False

    @property
    def hop(self) -> int:
        return math.prod(stride for _, _, stride in self.conv_feature_layers)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of z sees."""
        field, step = 1, 1
        for _, kernel, stride in self.conv_feature_layers:
            field += (kernel - 1) * step
            step *= stride
        return field

    @property
    def width(self) -> int:
        return self.conv_feature_layers[-1][0]


class FeatureEncoder(nn.Module):
    """Waveform to z: convolution, group normalisation over all channels and time, activation, layer by layer."""

    def __init__(self, spec: Wav2VecSpec) -> None:
        super().__init__()
        self._spec = spec
        widths = [1, *(channels for channels, _, _ in spec.conv_feature_layers)]
        self.conv_layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "0": nn.Conv1d(width, channels, kernel, stride, bias=False),
                    "2": nn.GroupNorm(1, channels, affine=not spec.non_affine_group_norm),
                }
            )
            for width, (channels, kernel, stride) in zip(widths[:-1], spec.conv_feature_layers, strict=True)
        )

    def forward(self, waveform_BT: Tensor, samples_B: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z_BCF and the frames of each row."""
        x, lengths_B = waveform_BT[:, None], samples_B
        activate = ACTIVATIONS[self._spec.activation]
        for layer, (_, kernel, stride) in zip(self.conv_layers, self._spec.conv_feature_layers, strict=True):
            before, before_B = x, lengths_B
            lengths_B = (lengths_B - kernel) // stride + 1
            convolution, norm = layer.children()
            x = activate(group_norm_over_own_frames(convolution(x), lengths_B, norm))
            if self._spec.skip_connections_feat and x.shape[1] == before.shape[1]:
                residual = _subsampled(before, before_B // lengths_B, x.shape[2])
                x = (x + residual) * math.sqrt(self._spec.residual_scale)
        if self._spec.log_compression:
            x = (x.abs() + 1).log()
        return x, lengths_B


def _subsampled(x_BCF: Tensor, step_B: Tensor, num_frames: int) -> Tensor:
    """Every `step_B`-th frame of each row: the step follows from the row's own length, as it would alone."""
    index_BF = (torch.arange(num_frames, device=x_BCF.device) * step_B[:, None]).clamp(max=x_BCF.shape[2] - 1)
    return x_BCF.gather(2, index_BF[:, None].expand(-1, x_BCF.shape[1], -1))


class Aggregator(nn.Module):
    """z to c: convolutions that see the present and the past only (padded on the left)."""

    def __init__(self, spec: Wav2VecSpec) -> None:
        super().__init__()
        self._spec = spec
        layers, projections = [], []
        width = spec.width
        for channels, kernel, stride in spec.conv_aggregator_layers:
            conv = nn.Conv1d(width, channels, kernel, stride, bias=not spec.no_conv_bias)
            norm = nn.GroupNorm(1, channels, affine=not spec.non_affine_group_norm)
            layers.append(nn.ModuleDict({"1": conv, "3": norm}))
            is_projected = spec.skip_connections_agg and width != channels
            projections.append(nn.Conv1d(width, channels, 1, bias=False) if is_projected else nn.Identity())
            width = channels
        self.conv_layers, self.residual_proj = nn.ModuleList(layers), nn.ModuleList(projections)

    def forward(self, z_BCF: Tensor, frames_B: Tensor) -> Tensor:
        """c_BCF, as many frames as z."""
        x, activate = z_BCF, ACTIVATIONS[self._spec.activation]
        mode = "constant" if self._spec.agg_zero_pad else "replicate"
        for layer, projection, (_, kernel, _) in zip(
            self.conv_layers, self.residual_proj, self._spec.conv_aggregator_layers, strict=True
        ):
            convolution, norm = layer.children()
            convolved = convolution(nn.functional.pad(x, (kernel - 1, 0), mode=mode))
            y = activate(group_norm_over_own_frames(convolved, frames_B, norm))
            x = (y + projection(x)) * math.sqrt(self._spec.residual_scale) if self._spec.skip_connections_agg else y
        return x


class GumbelQuantizer(nn.Module):
    """vq-wav2vec's Gumbel quantizer without its noise: the entry with the largest logit of each group."""

    def __init__(self, spec: Wav2VecSpec) -> None:
        super().__init__()
        self._groups, self._vars = spec.vq_groups, spec.vq_vars
        width, inner = spec.width, spec.width * 3
        self.vars = nn.Parameter(
            torch.zeros(
                1, (1 if spec.combine_groups else self._groups) * self._vars, (spec.vq_dim or width) // self._groups
            )
        )
        steps: list[nn.Module] = []
        for depth in range(spec.vq_depth - 1):
            steps.append(nn.Sequential(nn.Linear(width if depth == 0 else inner, inner), _activation(spec.activation)))
        last = nn.Linear(width if spec.vq_depth == 1 else inner, self._groups * self._vars)
        self.weight_proj = last if spec.vq_depth == 1 else nn.Sequential(*steps, last)

    def forward(self, z_BCF: Tensor, frames_B: Tensor) -> tuple[Tensor, Tensor]:
        """Returns codes_BFK and the chosen entries side by side, q_BCF."""
        codes_BFK, table = self.logits(z_BCF).argmax(-1), self._table()
        chosen = [table[group][codes_BFK[..., group]] for group in range(self._groups)]
        return codes_BFK, torch.cat(chosen, dim=-1).transpose(1, 2)

    def logits(self, z_BCF: Tensor) -> Tensor:
        """logits_BFKV."""
        batch, _, frames = z_BCF.shape
        out: Tensor = self.weight_proj(z_BCF.transpose(1, 2))
        return out.view(batch, frames, self._groups, self._vars)

    def chosen(self, weights_BFKV: Tensor) -> Tensor:
        """Sums of the entries of each group by their weights, side by side, q_BCF."""
        result = torch.einsum("bfkv,kvc->bfkc", weights_BFKV, self._table())
        return result.flatten(2).transpose(1, 2)

    def _table(self) -> Tensor:
        """Entries of each group, (K, V, C / K)."""
        return self.vars[0].view(-1, self._vars, self.vars.shape[-1]).expand(self._groups, -1, -1)


class KmeansQuantizer(nn.Module):
    """vq-wav2vec's k-means quantizer: the nearest entry of each group to a normalised projection of z."""

    def __init__(self, spec: Wav2VecSpec) -> None:
        super().__init__()
        self._groups, width = spec.vq_groups, spec.width
        shared = 1 if spec.combine_groups else self._groups
        self.embedding = nn.Parameter(torch.zeros(spec.vq_vars, shared, (spec.vq_dim or width) // self._groups))
        self.projection = nn.ModuleList(
            [nn.Conv1d(width, width, 1, groups=self._groups, bias=False), nn.GroupNorm(self._groups, width)]
        )

    def forward(self, z_BCF: Tensor, frames_B: Tensor) -> tuple[Tensor, Tensor]:
        """Returns codes_BFK and the chosen entries side by side, q_BCF."""
        return self.nearest(self.projected(z_BCF, frames_B))

    @property
    def num_entries(self) -> int:
        """Of each group."""
        return self.embedding.shape[0]

    def projected(self, z_BCF: Tensor, frames_B: Tensor) -> Tensor:
        """What is compared with the entries."""
        convolution, norm = self.projection
        return group_norm_over_own_frames(convolution(z_BCF), frames_B, norm)

    def nearest(self, projected_BCF: Tensor) -> tuple[Tensor, Tensor]:
        """See `forward`."""
        batch, channels, frames = projected_BCF.shape
        groups = projected_BCF.view(batch, self._groups, channels // self._groups, frames)
        table = self.embedding.expand(-1, self._groups, -1)
        codes, chosen = [], []
        for group in range(self._groups):
            entries_VC = table[:, group]
            distance = torch.cdist(
                groups[:, group].transpose(1, 2), entries_VC[None], compute_mode="donot_use_mm_for_euclid_dist"
            )
            codes.append(distance.argmin(-1))
            chosen.append(entries_VC[codes[-1]])
        return torch.stack(codes, dim=-1), torch.cat(chosen, dim=-1).transpose(1, 2)


QUANTIZERS: dict[str, Any] = {"gumbel": GumbelQuantizer, "kmeans": KmeansQuantizer}


class Wav2Vec(nn.Module):
    """The whole model; loads a fairseq state dict."""

    def __init__(self, spec: Wav2VecSpec) -> None:
        super().__init__()
        self.spec = spec
        self.feature_extractor, self.feature_aggregator = FeatureEncoder(spec), Aggregator(spec)
        self.vector_quantizer = QUANTIZERS[spec.vq_type](spec) if spec.vq_type != "none" else None

    def forward(
        self, waveform_BT: Tensor, samples_B: Tensor, with_context: bool = True
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
        """Rows give what they give alone, whatever lies behind their `samples_B` samples.

        Returns:
            z_BFC, c_BFC (None without `with_context`), codes_BFK (None without a quantizer), frames_B. With a
            quantizer c is made of the chosen entries, not of z.
        """
        z_BCF, frames_B = self.feature_extractor(waveform_BT, samples_B)
        codes_BFK, seen_BCF = None, z_BCF
        if self.vector_quantizer is not None:
            codes_BFK, seen_BCF = self.vector_quantizer(z_BCF, frames_B)
        c_BCF = self.feature_aggregator(seen_BCF, frames_B) if with_context else None
        return z_BCF.transpose(1, 2), None if c_BCF is None else c_BCF.transpose(1, 2), codes_BFK, frames_B


def _activation(name: str) -> nn.Module:
    return nn.ReLU() if name == "relu" else nn.GELU()


def num_frames(spec: Wav2VecSpec, num_samples: Sequence[int]) -> list[int]:
    """Frames that the encoder gives for each length."""
    results = []
    for length in num_samples:
        for _, kernel, stride in spec.conv_feature_layers:
            length = (length - kernel) // stride + 1
        results.append(length)
    return results
