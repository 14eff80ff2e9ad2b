"""CAM++: a convolutional front end and densely connected time-delay layers whose output is weighted by their context.

B batch, F mel frames, M mels, C channels, D width. Source: arXiv:2303.00332; 3D-Speaker (Apache-2.0), whose names the
tensors have.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from audiomill.models.device import one_thread
from audiomill.models.frames.fbank import HOP_SAMPLES, WINDOW_SAMPLES, kaldi_fbank
from audiomill.models.restricted_unpickler import checkpoint_tensors, loaded_into
from audiomill.models.speakers.embedder import FULL_SCALE, SpeakerEmbedder

NUM_MELS = 80
FRONT_CHANNELS, FIRST_CHANNELS, GROWTH, BOTTLENECK = 32, 128, 32, 128
BLOCKS = ((12, 1), (24, 2), (16, 2))
"""Layers of a block and their dilation."""
CONTEXT_FRAMES = 100
LEAST_FRAMES = 3
"""With fewer a deviation over time says nothing."""


class FrontBlock(nn.Module):
    """Two convolutions beside a short cut, over mels and frames."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        channels = FRONT_CHANNELS
        self.conv1 = nn.Conv2d(channels, channels, 3, (stride, 1), 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels, 1, (stride, 1), bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        out: Tensor = (inner + self.shortcut(x)).relu()
        return out


class FrontEnd(nn.Module):
    """An eighth of the mels, in more channels."""

    def __init__(self) -> None:
        super().__init__()
        channels = FRONT_CHANNELS
        self.conv1, self.bn1 = nn.Conv2d(1, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(FrontBlock(2), FrontBlock(1))
        self.layer2 = nn.Sequential(FrontBlock(2), FrontBlock(1))
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, (2, 1), 1, bias=False), nn.BatchNorm2d(channels)
        self.out_channels = channels * NUM_MELS // 8

    def forward(self, mel_BMF: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.bn1(self.conv1(mel_BMF[:, None])).relu()))
        out: Tensor = self.bn2(self.conv2(x)).relu().flatten(1, 2)
        return out


def normed(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU()))


class FirstLayer(nn.Module):
    """Every second frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, FIRST_CHANNELS, 5, 2, 2, bias=False)
        self.nonlinear = normed(FIRST_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.nonlinear(self.linear(x))
        return out


class Pointwise(nn.Conv1d):
    """A convolution over single frames, as the product that it is: its bits do not depend on the number of threads."""

    def __init__(self, channels: int, width: int, bias: bool = False) -> None:
        super().__init__(channels, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        result = self.weight[:, :, 0] @ x
        return result if self.bias is None else result + self.bias[:, None]


class ContextLayer(nn.Module):
    """A convolution whose output is weighted by the mean of all frames and of its own stretch of them."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(BOTTLENECK, GROWTH, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = Pointwise(BOTTLENECK, BOTTLENECK // 2, bias=True)
        self.linear2 = Pointwise(BOTTLENECK // 2, GROWTH, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        means = nn.functional.avg_pool1d(x, CONTEXT_FRAMES, CONTEXT_FRAMES, ceil_mode=True)
        context = x.mean(-1, keepdim=True) + means
        weight = self.linear2(self.linear1(context).relu()).sigmoid()  # the same for all frames of a stretch
        weight = weight.repeat_interleave(CONTEXT_FRAMES, -1)[..., : x.shape[-1]]
        out: Tensor = self.linear_local(x) * weight
        return out


class DenseLayer(nn.Module):
    """Adds channels to those that it is given."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1, self.linear1 = normed(channels), Pointwise(channels, BOTTLENECK)
        self.nonlinear2, self.cam_layer = normed(BOTTLENECK), ContextLayer(dilation)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))], 1)


class Halving(nn.Module):
    """Half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nonlinear, self.linear = normed(channels), Pointwise(channels, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.nonlinear(x))
        return out


class Statistics(nn.Module):
    """Mean and deviation over time."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(-1), x.std(-1)], -1)


class LastLayer(nn.Module):
    """The vector."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear = Pointwise(channels, width)
        self.nonlinear = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(width, affine=False)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.nonlinear(self.linear(x[..., None])[..., 0])
        return out


class CamPlusPlus(nn.Module):
    """Log-mels with zero mean over time -> vector_BD. Rows of one length: a mean over time takes no padding.

    Args:
        width: D.
    """

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.head = FrontEnd()
        layers: OrderedDict[str, nn.Module] = OrderedDict(tdnn=FirstLayer(self.head.out_channels))
        channels = FIRST_CHANNELS
        for number, (count, dilation) in enumerate(BLOCKS, 1):
            dense = [DenseLayer(channels + at * GROWTH, dilation) for at in range(count)]
            layers[f"block{number}"] = nn.Sequential(
                OrderedDict((f"tdnnd{at}", each) for at, each in enumerate(dense, 1))
            )
            channels += count * GROWTH
            layers[f"transit{number}"] = Halving(channels)
            channels //= 2
        layers |= {"out_nonlinear": normed(channels), "stats": Statistics(), "dense": LastLayer(2 * channels, width)}
        self.xvector = nn.Sequential(layers)

    def forward(self, mel_BFM: Tensor) -> Tensor:
        out: Tensor = self.xvector(self.head(mel_BFM.transpose(1, 2)))
        return out


def load_campplus(path: Path, device: str, root: str) -> SpeakerEmbedder:
    """Of a file or folder; `root`: name of the tensor that the model begins with.

    Raises:
        ModelError: tensors are missing or do not fit.
    """
    tensors = checkpoint_tensors(path, root)
    width = tensors["xvector.dense.linear.weight"].shape[0]
    network = loaded_into(CamPlusPlus(width), tensors, path).to(device)
    fbank = kaldi_fbank(NUM_MELS, torch.device(device))

    def forward(pcm_BT: Tensor) -> Tensor:
        with one_thread():
            mel_BFM = fbank.log_mels(pcm_BT.double() / FULL_SCALE)
        out: Tensor = network((mel_BFM - mel_BFM.mean(1, keepdim=True)).float())
        return out

    return SpeakerEmbedder(forward, width, WINDOW_SAMPLES + (LEAST_FRAMES - 1) * HOP_SAMPLES, torch.device(device))
