"""Hidden states of a batch -> vectors (pooling) and codes of each row. Everything on the device, one transfer per output.

B batch, F frames, G groups of frames, N all valid frames of a batch, D width, K codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.audio.cutting.segment import Segment
from audiomill.audio.vad import FRAME_SAMPLES
from audiomill.models.base import CONV, MIXED, CodesRequest, Readout, RequestedOutputs, VectorRequest, Vectors
from audiomill.models.finite import is_finite, not_finite
from audiomill.models.task import Hop

Quantizer = Callable[[Tensor], Tensor]
"""hidden_ND -> codes_NK."""
MAX_HALF = 65504.0


class CoreFrames:
    """The frames of each row that belong to its segment: those that start inside it, not in the context.

    Args:
        segments: the batch.
        num_frames: frames that the model gives for each of them alone.
        hop: samples at 16 kHz from one frame to the next.
        device: of the hidden states.
    """

    def __init__(self, segments: Sequence[Segment], num_frames: Sequence[int], hop: Hop, device: torch.device) -> None:
        first, self.counts = [], []
        for segment, frames in zip(segments, num_frames, strict=True):
            start = -(-segment.left // hop)
            stop = frames if segment.right == 0 else -(-(len(segment.pcm_T) - segment.right) // hop)
            first.append(start)
            self.counts.append(max(0, min(stop, frames) - start))
        self._segments, self._first, self._hop = segments, first, hop
        self.num_frames_B = torch.tensor(self.counts, device=device)
        at_F = torch.arange(max(self.counts), device=device)
        self._index_BF = torch.tensor(first, device=device)[:, None] + at_F
        self.mask_BF = at_F < self.num_frames_B[:, None]

    def with_speech(self) -> Tensor:
        """mask_BF of core frames with voice activity in their middle; all of a row that has none."""
        result = np.zeros(self.mask_BF.shape, bool)
        for row, (segment, first, count) in enumerate(zip(self._segments, self._first, self.counts, strict=True)):
            assert segment.vad_mask is not None, "voice activity was marked where it is wanted"
            vad_mask = np.frombuffer(segment.vad_mask, np.uint8).astype(bool)
            middle_F = ((first + np.arange(count) + 0.5) * float(self._hop)).astype(np.int64)
            spoken_F = vad_mask[np.minimum(middle_F // FRAME_SAMPLES, len(vad_mask) - 1)]
            result[row, :count] = spoken_F if spoken_F.any() else True
        return torch.from_numpy(result).to(self.mask_BF.device)

    def take(self, hidden_BFD: Tensor) -> Tensor:
        """Core frames moved to the front of their row, zeros behind; float32."""
        index_BF = self._index_BF.clamp(max=hidden_BFD.shape[1] - 1)
        taken = hidden_BFD.gather(1, index_BF[..., None].expand(-1, -1, hidden_BFD.shape[-1]))
        return taken.float().masked_fill(~self.mask_BF[..., None], 0.0)


def read_out(
    requested: RequestedOutputs,
    hidden: Mapping[int, Tensor],
    own_codes_BFK: Tensor | None,
    quantizers: Mapping[str, Quantizer],
    core_of: Callable[[int | None], CoreFrames],
) -> list[Readout]:
    """What is wanted of a batch, row by row.

    Args:
        requested: see `audiomill.models.base`.
        hidden: hidden_BFD by layer.
        own_codes_BFK: of the checkpoint's own quantizer, where its codes need the whole batch.
        quantizers: by name of the want; see `Quantizer`.
        core_of: which frames of a hidden state count; None: of the checkpoint's own quantizer.

    Raises:
        RunError: a hidden state holds no numbers.
    """
    taken = {layer: core_of(layer).take(hidden[layer]) for layer in requested.layers}
    for layer, values in taken.items():
        if not is_finite(values):
            raise not_finite("the convolutions" if layer == CONV else f"layer {layer}")
    vectors = [_vectors(_mixed(taken, want), want, core_of(want.hidden_states[0])) for want in requested.vectors]
    codes = [_codes(taken, own_codes_BFK, want, quantizers, core_of(want.layer)) for want in requested.codes]
    num_rows = len(core_of(min(requested.layers, default=None)).counts)
    return [Readout(tuple(v[row] for v in vectors), tuple(c[row] for c in codes)) for row in range(num_rows)]


def _mixed(taken: Mapping[int, Tensor], want: VectorRequest) -> Tensor:
    """The hidden state of a want, or the weighted sum of several."""
    if want.layer != MIXED:
        return taken[want.layer]
    first, *others = want.hidden_states
    mixed = want.weights[first] * taken[first]
    for number in others:
        mixed.add_(taken[number], alpha=want.weights[number])
    return mixed


def _codes(
    taken: Mapping[int, Tensor],
    own_codes_BFK: Tensor | None,
    want: CodesRequest,
    quantizers: Mapping[str, Quantizer],
    core: CoreFrames,
) -> list[NDArray[np.uint16]]:
    if want.layer is None:
        assert own_codes_BFK is not None, "the model has a quantizer of its own"
        codes_NK = core.take(own_codes_BFK)[core.mask_BF].long()
    else:
        codes_NK = quantizers[want.name](taken[want.layer][core.mask_BF])
    codes_KN = codes_NK.T.to(torch.int32).cpu().numpy().astype(np.uint16)
    return np.split(codes_KN, np.cumsum(core.counts)[:-1], axis=1)


def _vectors(taken_BFD: Tensor, want: VectorRequest, core: CoreFrames) -> list[Vectors]:
    if want.pool == "none":
        grouped_BGD, lengths = _grouped(taken_BFD, core, want.stride)
        mask_BG = torch.arange(grouped_BGD.shape[1], device=taken_BFD.device) < lengths[:, None]
        values_ND, counts = grouped_BGD[mask_BG], lengths.tolist()
        frames = counts
    else:
        mask_BF = core.with_speech() if want.over_speech else core.mask_BF
        values_ND, counts = _pooled(taken_BFD, want.pool, mask_BF), [1] * len(core.counts)
        frames = mask_BF.sum(1).tolist()
    if want.l2_normalize:
        values_ND = values_ND / values_ND.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    values, scale = _stored(values_ND, want.dtype)
    edges = np.cumsum(counts)[:-1]
    scales: Sequence[Any] = [None] * len(counts) if scale is None else np.split(scale, edges)
    return [Vectors(*row) for row in zip(np.split(values, edges), scales, frames, strict=True)]


def _grouped(taken_BFD: Tensor, core: CoreFrames, stride: int) -> tuple[Tensor, Tensor]:
    """Means of `stride` frames; the last group of a row may have fewer."""
    if stride == 1:
        return taken_BFD, core.num_frames_B
    batch, frames, width = taken_BFD.shape
    padded = torch.nn.functional.pad(taken_BFD, (0, 0, 0, -frames % stride))
    sums_BGD = padded.view(batch, -1, stride, width).sum(2)
    first_G = stride * torch.arange(sums_BGD.shape[1], device=taken_BFD.device)
    size_BG = (core.num_frames_B[:, None] - first_G).clamp(min=1, max=stride)
    return sums_BGD / size_BG[..., None], (core.num_frames_B + stride - 1) // stride


def _pooled(taken_BFD: Tensor, pool: str, mask_BF: Tensor) -> Tensor:
    """Mean, mean beside population standard deviation, or maximum over the frames of a mask."""
    if pool == "max":
        return taken_BFD.masked_fill(~mask_BF[..., None], -torch.inf).amax(1)
    count_B1 = mask_BF.sum(1)[:, None]
    mean_BD = taken_BFD.masked_fill(~mask_BF[..., None], 0.0).sum(1) / count_B1
    if pool == "mean":
        return mean_BD
    centred = (taken_BFD - mean_BD[:, None]).masked_fill(~mask_BF[..., None], 0.0)
    return torch.cat([mean_BD, (centred.square().sum(1) / count_B1).sqrt()], dim=-1)


def _stored(values_ND: Tensor, dtype: str) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    if dtype == "int8":
        scale_N = values_ND.abs().amax(-1).clamp(min=1e-30) / 127
        return (values_ND / scale_N[:, None]).round().to(torch.int8).cpu().numpy(), scale_N.cpu().numpy()
    if dtype == "fp16":  # some models have a few values beyond what fp16 holds: the largest it holds, not infinity
        values_ND = values_ND.clamp(-MAX_HALF, MAX_HALF).half()
    return values_ND.cpu().numpy(), None
