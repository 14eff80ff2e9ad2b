"""SincNet filters, recurrent layers and a powerset of speakers: the network of pyannote segmentation 3.0.

B batch, T samples, C channels, F frames, P sets of speakers, S speakers. Sources: pyannote.audio (MIT), asteroid-filterbanks
(MIT), arXiv:2310.13025 (powerset), arXiv:1808.00158 (SincNet). Tensors have the names of the originals.
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor, nn

from audiomill.audio.clock import MODEL_SAMPLE_RATE

NUM_FILTERS, KERNEL, STRIDE = 80, 251, 10
POOL = 3
LEAST_HZ = 50.0
PYANNET_HOP = STRIDE * POOL**3
"""Samples from one frame to the next."""
RECEPTIVE = KERNEL + STRIDE * ((POOL - 1) + POOL * (4 + (POOL - 1) + POOL * (4 + (POOL - 1))))
"""Samples that one frame sees."""
LEAST_SAMPLES = RECEPTIVE


LEAST_SETS = 7


class SincFilters(nn.Module):
    """Band-pass filters that are told by their edges: cosines, then sines of the same bands."""

    window_: Tensor
    n_: Tensor

    def __init__(self) -> None:
        super().__init__()
        half = KERNEL // 2
        self.low_hz_ = nn.Parameter(torch.zeros(NUM_FILTERS // 2, 1))
        self.band_hz_ = nn.Parameter(torch.zeros(NUM_FILTERS // 2, 1))
        self.register_buffer("window_", torch.zeros(half))
        self.register_buffer("n_", torch.zeros(1, half))

    def filters(self) -> Tensor:
        """One (1, KERNEL) filter a channel."""
        low = LEAST_HZ + self.low_hz_.abs()
        high = (low + LEAST_HZ + self.band_hz_.abs()).clamp(LEAST_HZ, MODEL_SAMPLE_RATE / 2)
        band = high - low
        at_low, at_high = low @ self.n_, high @ self.n_
        shape = self.window_ / (self.n_ / 2)
        cosines, sines = (at_high.sin() - at_low.sin()) * shape, (at_low.cos() - at_high.cos()) * shape
        middle = 2 * band
        even = torch.cat([cosines, middle, cosines.flip(1)], 1)
        odd = torch.cat([sines, torch.zeros_like(middle), -sines.flip(1)], 1)
        return (torch.cat([even, odd]) / (2 * band).repeat(2, 1))[:, None]

    def forward(self, wave_B1T: Tensor) -> Tensor:
        return nn.functional.conv1d(wave_B1T, self.filters(), stride=STRIDE)


class FilterBank(nn.Module):
    """Holds the filters where the originals keep them."""

    def __init__(self) -> None:
        super().__init__()
        self.filterbank = SincFilters()

    def forward(self, wave_B1T: Tensor) -> Tensor:
        out: Tensor = self.filterbank(wave_B1T)
        return out


class SincNet(nn.Module):
    """Samples -> 60 features a frame. Norms are over each row's own time, so all rows of a batch have one length."""

    def __init__(self) -> None:
        super().__init__()
        self.wav_norm1d = nn.InstanceNorm1d(1, affine=True)
        self.conv1d = nn.ModuleList([FilterBank(), nn.Conv1d(NUM_FILTERS, 60, 5), nn.Conv1d(60, 60, 5)])
        self.norm1d = nn.ModuleList([nn.InstanceNorm1d(count, affine=True) for count in (NUM_FILTERS, 60, 60)])

    def forward(self, wave_B1T: Tensor) -> Tensor:
        x = self.wav_norm1d(wave_B1T)
        for number, (conv, norm) in enumerate(zip(self.conv1d, self.norm1d, strict=True)):
            x = conv(x).abs() if number == 0 else conv(x)
            x = nn.functional.leaky_relu(norm(nn.functional.max_pool1d(x, POOL)))
        out: Tensor = x
        return out


class PyanNet(nn.Module):
    """Log-probabilities of sets of speakers, frame by frame.

    Args:
        num_layers, width: of the recurrent layers.
        num_speakers: that may speak in a window.
        most_at_once: of these, in a frame.
    """

    members_PS: Tensor

    def __init__(self, num_layers: int = 4, width: int = 128, num_speakers: int = 3, most_at_once: int = 2) -> None:
        super().__init__()
        self.sincnet = SincNet()
        self.lstm = nn.LSTM(60, width, num_layers, bidirectional=True, batch_first=True)
        self.linear = nn.ModuleList([nn.Linear(2 * width, 128), nn.Linear(128, 128)])
        sets = [
            combination for size in range(most_at_once + 1) for combination in combinations(range(num_speakers), size)
        ]
        self.classifier = nn.Linear(128, len(sets))
        members = torch.tensor([[float(speaker in each) for speaker in range(num_speakers)] for each in sets])
        self.register_buffer("members_PS", members, persistent=False)

    def forward(self, wave_BT: Tensor) -> Tensor:
        """logprobs_BFP."""
        x, _ = self.lstm(self.sincnet(wave_BT[:, None]).transpose(1, 2))
        for linear in self.linear:
            x = nn.functional.leaky_relu(linear(x))
        out: Tensor = self.classifier(x).log_softmax(-1)
        return out

    def activity(self, wave_BT: Tensor) -> tuple[Tensor, Tensor]:
        """probability_BFS of each speaker, and active_BFS: who is in the likeliest set."""
        logprobs_BFP = self(wave_BT)
        return logprobs_BFP.exp() @ self.members_PS, self.members_PS[logprobs_BFP.argmax(-1)] > 0


def num_speakers_of(num_sets: int) -> tuple[int, int]:
    """(speakers, most at once) of a classifier with so many outputs.

    Raises:
        ValueError: no powerset has so many, or it may be an older model's, whose three or four outputs are no sets.
    """
    if num_sets < LEAST_SETS:
        raise ValueError(f"{num_sets} outputs, as models before segmentation 3.0 have, which are no sets")
    for speakers in range(1, 9):
        for most in range(1, speakers + 1):
            if sum(math.comb(speakers, size) for size in range(most + 1)) == num_sets:
                return speakers, most
    raise ValueError(f"{num_sets} sets")
