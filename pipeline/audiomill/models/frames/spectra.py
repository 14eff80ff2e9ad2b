"""Spectra of whole batches, each row's as it is alone. Double precision: the logarithm of weak bands shows the rounding of
strong ones otherwise.

B batch, T samples, F frames, N frequencies, W samples a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def waveforms(rows: Sequence[NDArray[np.int16]]) -> list[NDArray[np.float64]]:
    """Samples from -1 to 1."""
    return [row.astype(np.float64) / 32768.0 for row in rows]


def with_margins(rows: Sequence[NDArray[np.float64]], margin: int, mode: str, device: torch.device) -> Tensor:
    """Rows side by side, samples_BT, zeros behind; each with a margin on both sides of its own, as an STFT that centres
    its windows has it.

    Args:
        rows: of any lengths.
        margin: samples on each side.
        mode: what is in it, see `numpy.pad`: "constant" or "reflect".
        device: where to put them.
    """
    padded = [np.pad(row, margin, mode=mode) for row in rows]  # type: ignore[call-overload]
    samples_BT = np.zeros((len(rows), max(map(len, padded))))
    for number, row in enumerate(padded):
        samples_BT[number, : len(row)] = row
    return torch.from_numpy(samples_BT).to(device)


def powers(samples_BT: Tensor, window_W: Tensor, hop: int, num_fft: int) -> Tensor:
    """power_BFN of windows that start at every `hop` samples."""
    frames_BFW = samples_BT.unfold(-1, len(window_W), hop)
    power_BFN: Tensor = torch.fft.rfft(frames_BFW * window_W, num_fft).abs().square()
    return power_BFN


def centred_window(window_W: Tensor, num_fft: int) -> Tensor:
    """Zeros on both sides up to `num_fft` samples, as `torch.stft` does it."""
    before = (num_fft - len(window_W)) // 2
    return torch.nn.functional.pad(window_W, (before, num_fft - len(window_W) - before))


def own_frames(lengths_B: Sequence[int], num_frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """counts_B and mask_BF: True inside each row's own frames."""
    counts_B = torch.tensor(lengths_B, device=device)
    return counts_B, torch.arange(num_frames, device=device) < counts_B[:, None]
