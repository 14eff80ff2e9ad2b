"""The front end of models that take log-mels, whichever: windows, powers, filters, logarithm. Oracles are the feature
extractors of transformers.

B batch, T samples, F mel frames, M mels, N frequencies, W samples a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from audiomill.audio.clock import MODEL_SAMPLE_RATE


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


def own_frames(lengths_B: Sequence[int], num_frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """counts_B and mask_BF: True inside each row's own frames."""
    counts_B = torch.tensor(lengths_B, device=device)
    return counts_B, torch.arange(num_frames, device=device) < counts_B[:, None]


@dataclass(frozen=True, kw_only=True)
class MelSpec:
    """What differs between front ends.

    Attributes:
        filters_NM: of the powers of N frequencies, in double.
        window: samples a frame.
        hop: samples from one frame to the next.
        num_fft: of the transform.
        log: powers -> what the model takes.
        is_periodic: the Hann window ends before its second zero.
        margin: mode of `numpy.pad` where windows are centred on their frames; "": they lie whole inside the audio.
        preemphasis: of the waveform.
        is_kaldi: frames are made as in `compute-fbank-feats`: mean taken out, pre-emphasis inside the frame, Povey's window.
        filled: samples of a row -> how many it is filled up to with zeros.
        num_frames: of a row of so many samples, filled up.
    """

    filters_NM: Tensor
    window: int
    hop: int
    num_fft: int
    log: Callable[[Tensor], Tensor]
    is_periodic: bool = False
    margin: str = ""
    preemphasis: float = 0.0
    is_kaldi: bool = False
    filled: Callable[[int], int] = lambda num_samples: num_samples
    num_frames: Callable[[int], int]


class MelFrontEnd:
    """Log-mels of rows of any lengths, each row's as it is alone. Sums are in double: the logarithm of weak bands shows the
    rounding of strong ones otherwise.

    Args:
        spec: what differs between front ends.
        device: where to compute.
    """

    def __init__(self, spec: MelSpec, device: torch.device) -> None:
        self._spec, self._device = spec, device
        self._filters_NM = spec.filters_NM.double().to(device)
        window_W = torch.hann_window(spec.window, periodic=spec.is_periodic, dtype=torch.float64, device=device)
        if spec.is_kaldi:
            window_W = window_W**0.85
        missing = spec.num_fft - spec.window if spec.margin else 0  # a centred window as `torch.stft` has it
        self._window = torch.nn.functional.pad(window_W, (missing // 2, missing - missing // 2))

    def __call__(self, rows: Sequence[NDArray[np.int16]]) -> tuple[Tensor, Tensor, Tensor]:
        """mel_BFM, frames of each row, and mask_BF."""
        return self.of_waves(waveforms(rows))

    def of_waves(self, rows: Sequence[NDArray[np.float64]]) -> tuple[Tensor, Tensor, Tensor]:
        """The same of samples from -1 to 1."""
        spec, waves = self._spec, [self._filled(row) for row in rows]
        margin = spec.num_fft // 2 if spec.margin else 0
        mel_BFM = self.log_mels(with_margins(waves, margin, spec.margin or "constant", self._device))
        counts = [spec.num_frames(len(wave)) for wave in waves]
        return mel_BFM, *own_frames(counts, mel_BFM.shape[1], self._device)

    def log_mels(self, wave_BT: Tensor) -> Tensor:
        """mel_BFM of rows as they are."""
        frames_BFW = wave_BT.double().unfold(-1, len(self._window), self._spec.hop)
        if self._spec.is_kaldi:
            frames_BFW = frames_BFW - frames_BFW.mean(-1, keepdim=True)
            before = torch.cat([frames_BFW[..., :1], frames_BFW[..., :-1]], dim=-1)
            frames_BFW = frames_BFW - KALDI_PREEMPHASIS * before
        power_BFN = torch.fft.rfft(frames_BFW * self._window, self._spec.num_fft).abs().square()
        return self._spec.log(power_BFN @ self._filters_NM)

    def _filled(self, wave_T: NDArray[np.float64]) -> NDArray[np.float64]:
        wave_T = np.pad(wave_T, (0, max(0, self._spec.filled(len(wave_T)) - len(wave_T))))
        if not self._spec.preemphasis:
            return wave_T
        return np.concatenate([wave_T[:1], wave_T[1:] - self._spec.preemphasis * wave_T[:-1]])


def mel_filters(num_mels: int, num_fft: int, **more: Any) -> Tensor:
    """filters_NM up to half the rate, by transformers. `more`: of its `mel_filter_bank`."""
    settings = {"min_frequency": 0.0, "norm": None, "mel_scale": "htk", **more}
    filters = mel_filter_bank(
        num_frequency_bins=num_fft // 2 + 1,
        num_mel_filters=num_mels,
        max_frequency=MODEL_SAMPLE_RATE / 2,
        sampling_rate=MODEL_SAMPLE_RATE,
        **settings,
    )
    return torch.from_numpy(np.asarray(filters, np.float64))


def standardized(
    mel_BFM: Tensor, counts_B: Tensor, mask_BF: Tensor, deviation: Callable[[Tensor], Tensor], padding: float
) -> Tensor:
    """Each mel with zero mean and unit variance over the row's own frames; `deviation`: by the variance; `padding` behind
    them."""
    mask_BF1, count_B11 = mask_BF[..., None], counts_B[:, None, None]
    centred = mel_BFM - (mel_BFM * mask_BF1).sum(1, keepdim=True) / count_B11
    variance = (centred * mask_BF1).square().sum(1, keepdim=True) / (count_B11 - 1)
    return (centred / deviation(variance)).masked_fill(~mask_BF1, padding).float()


WINDOW_SAMPLES, HOP_SAMPLES, NUM_FFT = 400, 160, 512
KALDI_PREEMPHASIS, MEL_FLOOR, LOWEST_HZ = 0.97, 1.192092955078125e-07, 20.0


def num_mel_frames(num_samples_B: Tensor) -> Tensor:
    """Frames that fit whole into each row."""
    return 1 + (num_samples_B - WINDOW_SAMPLES) // HOP_SAMPLES


def kaldi_fbank(num_mels: int, device: torch.device) -> MelFrontEnd:
    """As wav2vec2-BERT, Speech2Text and CAM++ take them. Source: Kaldi `compute-fbank-feats` with a Povey window."""
    kind = {"min_frequency": LOWEST_HZ, "mel_scale": "kaldi", "triangularize_in_mel_space": True}
    spec = MelSpec(
        filters_NM=mel_filters(num_mels, NUM_FFT, **kind),
        window=WINDOW_SAMPLES,
        hop=HOP_SAMPLES,
        num_fft=NUM_FFT,
        log=lambda power: power.clamp(min=MEL_FLOOR).log(),
        is_kaldi=True,
        num_frames=lambda num_samples: 1 + (num_samples - WINDOW_SAMPLES) // HOP_SAMPLES,
    )
    return MelFrontEnd(spec, device)
