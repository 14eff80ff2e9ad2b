"""How the channels of a recording become one: their mean, unless that would lose the sound.

Decided once a recording, by the energies of the whole of it. G: products of channels summed over all samples (C, C).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.decode import open_audio
from audiomill.errors import Rejected

SILENT = 1e-4
"""A channel with less of the loudest one's energy (-40 dB) is silent."""
CANCELLED = 0.1
"""A mean that keeps less of the channels' mean energy: for two of them a correlation below -0.8."""
MAX_LOOKED_AT = 32
"""Channels; beyond, the mean is taken."""


@dataclass(frozen=True)
class Mixing:
    """`weights_C`: of each channel; None: the mean. `notes`: why it is not the mean."""

    weights_C: NDArray[np.float32] | None = None
    notes: str | None = None

    def mixed(self, block_TC: NDArray[np.float32]) -> NDArray[np.float32]:
        """One channel."""
        if block_TC.shape[1] == 1:
            return block_TC
        if self.weights_C is None:
            mean: NDArray[np.float32] = block_TC.mean(axis=1, keepdims=True, dtype=np.float32)
            return mean
        return block_TC @ self.weights_C[:, None]


def mixing_of(handle: IO[bytes], start_s: float, longest_s: float, track: str, progress: Callable[[], None]) -> Mixing:
    """Reads a recording of several channels once for its energies.

    Args:
        handle: encoded audio at its start, where it is left again.
        start_s: seconds to leave out at the beginning.
        longest_s: seconds to look at.
        track: see `open_audio`.
        progress: told of every step.
    """
    try:
        with open_audio(handle, start_s, track) as audio:
            if not 1 < audio.num_channels <= MAX_LOOKED_AT:
                return Mixing()
            left, gram_CC = int(longest_s * audio.sample_rate), np.zeros((audio.num_channels,) * 2)
            for block in audio.blocks_TK:
                used = block[:left].astype(np.float64)
                left -= len(used)
                gram_CC += used.T @ used
                progress()
                if left <= 0:
                    break
            return mixing_by(gram_CC)
    except Rejected:  # told by the pass that follows
        return Mixing()
    finally:
        handle.seek(0)


def mixing_by(gram_CC: NDArray[np.float64]) -> Mixing:
    """The choice for these energies."""
    energy_C = np.diag(gram_CC)
    if not np.isfinite(gram_CC).all() or not energy_C.max(initial=0.0) > 0:
        return Mixing()
    heard_C = energy_C > SILENT * energy_C.max()
    weights_C = heard_C / heard_C.sum()
    share = float(weights_C @ gram_CC @ weights_C) / float(energy_C[heard_C].mean())
    silent = [str(number) for number in np.flatnonzero(~heard_C)]
    notes = f"silent channels left out of the mix: {', '.join(silent)}" if silent else None
    if heard_C.sum() > 1 and share < CANCELLED:
        first, second = np.flatnonzero(heard_C)[:2]
        weights_C = np.zeros(len(energy_C))
        if heard_C.sum() == 2:
            weights_C[[first, second]] = 0.5, -0.5
            chosen = f"the difference of channels {first} and {second} was taken"
        else:
            weights_C[int(energy_C.argmax())] = 1.0
            chosen = f"channel {int(energy_C.argmax())} alone was taken"
        cancelled = f"channels cancel each other (their mean keeps {share:.1%} of the energy): {chosen}"
        notes = cancelled if notes is None else f"{notes}; {cancelled}"
    return Mixing() if notes is None else Mixing(weights_C.astype(np.float32), notes)
