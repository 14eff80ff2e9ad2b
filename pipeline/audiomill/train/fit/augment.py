"""Training clips at another speed and in noise: a function of the clip and a seed alone. T samples."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiomill.audio.perturb import at_speed, in_noise


def mixed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """What products are computed in; None for float32."""
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(precision: torch.dtype | None, device: torch.device) -> Any:
    return contextlib.nullcontext() if precision is None else torch.autocast(device.type, dtype=precision)


NOISE_RANGE_DB = 20.0
NOISE_SHARE = 0.5


def augmented(
    pcm_T: NDArray[np.int16], speed_range: float, noise_snr: float | None, random: np.random.Generator
) -> NDArray[np.int16]:
    """A clip changed as far as asked for.

    Args:
        pcm_T: at 16 kHz.
        speed_range: largest change of speed, as a share.
        noise_snr: loudest noise, in dB below the speech; None for none.
        random: where chance comes from.
    """
    if speed_range:
        pcm_T = at_speed(pcm_T, 1 + speed_range * (2 * random.random() - 1))
    if noise_snr is not None and random.random() < NOISE_SHARE:
        pcm_T = in_noise(pcm_T, noise_snr + NOISE_RANGE_DB * random.random(), random)
    return pcm_T
