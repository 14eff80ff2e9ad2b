"""How the channels of a recording become one: their mean, unless that would lose the sound; and how loud it is made.

Decided once a recording, by the energies of the whole of it. G: products of channels summed over all samples (C, C).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.decode import open_audio
from audiomill.errors import RecordingRejected

SILENT = 1e-4
"""A channel with less of the loudest one's energy (-40 dB) is silent."""
CANCELLED = 0.1
"""A mean that keeps less of the channels' mean energy: for two of them a correlation below -0.8."""
QUIET, NOTHING, RAISED_TO = 0.01, 1e-4, 0.1
"""Peaks: below -40 dB voice activity misses speech, so a recording is raised to -20 dB; below -80 dB there is nothing."""
TURN_S, ACTIVE, FAR_LOUDER, UNLIKE, MIN_TURNS = 0.25, 1e-3, 10.0, 0.3, 0.1
"""Two people on two channels: in stretches of this length that are no pauses, each channel is by 10 dB the louder one in a tenth of
them at least, and the two are not alike (stereo music and rooms are, or neither is silent while the other sounds)."""
MAX_LOOKED_AT = 32
"""Channels; beyond, the mean is taken."""


@dataclass(frozen=True)
class Mixing:
    """`weights_C`: of each channel; None: the mean. `gain`: of all. `notes`: why it is not the mean as it is."""

    weights_C: NDArray[np.float32] | None = None
    notes: str | None = None
    gain: float = 1.0

    def mixed(self, block_TC: NDArray[np.float32]) -> NDArray[np.float32]:
        """One channel."""
        mixed: NDArray[np.float32] = block_TC
        if block_TC.shape[1] > 1 and self.weights_C is None:
            mixed = block_TC.mean(axis=1, keepdims=True, dtype=np.float32)
        elif self.weights_C is not None:
            mixed = block_TC @ self.weights_C[:, None]
        return mixed if self.gain == 1.0 else mixed * np.float32(self.gain)


def mixing_of(
    handle: IO[bytes], start_s: float, longest_s: float, track: str, raises: bool, progress: Callable[[], None]
) -> Mixing:
    """Reads a recording of several channels, or one that begins very quietly, once for its energies and its peak.

    Args:
        handle: encoded audio at its start, where it is left again.
        start_s: seconds to leave out at the beginning.
        longest_s: seconds to look at.
        track: see `open_audio`.
        raises: a very quiet recording is made louder.
        progress: told of every step.
    """
    try:
        with open_audio(handle, start_s, track) as audio:
            if audio.num_channels > MAX_LOOKED_AT or (audio.num_channels == 1 and not raises):
                return Mixing()
            left, gram_CC, peak = int(longest_s * audio.sample_rate), np.zeros((audio.num_channels,) * 2), 0.0
            turns = _Turns(audio.sample_rate)
            for block in audio.blocks_TK:
                used = block[:left].astype(np.float64)
                turns.push(used)
                left -= len(used)
                gram_CC += used.T @ used
                peak = max(peak, float(np.abs(used).max(initial=0.0)))
                progress()
                if left <= 0 or (audio.num_channels == 1 and peak >= QUIET):
                    break
            mixing = mixing_by(gram_CC)
            if turns.are_two_people(gram_CC):
                note = "the channels hold different speech, mixed into one: --channels split hears each alone"
                mixing = replace(mixing, notes=note if mixing.notes is None else f"{mixing.notes}; {note}")
            return raised(mixing, peak) if raises else mixing
    except RecordingRejected:  # told by the pass that follows
        return Mixing()
    finally:
        handle.seek(0)


class _Turns:
    """Whether two channels are two people, each on one: how often one is far louder than the other."""

    def __init__(self, sample_rate: int) -> None:
        self._size = max(1, int(TURN_S * sample_rate))
        self._energies: list[NDArray[np.float64]] = []

    def push(self, block_TC: NDArray[np.float64]) -> None:
        count = len(block_TC) // self._size
        if block_TC.shape[1] == 2 and count:
            cut = block_TC[: count * self._size].reshape(count, self._size, 2)
            self._energies.append((cut**2).sum(1))

    def are_two_people(self, gram_CC: NDArray[np.float64]) -> bool:
        """By the products of the channels over all of the recording, and the energies of stretches."""
        if not self._energies or not min(np.diag(gram_CC)) > 0:
            return False
        correlation = abs(float(gram_CC[0, 1])) / float(np.sqrt(gram_CC[0, 0] * gram_CC[1, 1]))
        energy_NC = np.concatenate(self._energies)
        spoken_N = energy_NC.max(1) > ACTIVE * energy_NC.max()
        shares = [
            float((energy_NC[spoken_N, a] > FAR_LOUDER * energy_NC[spoken_N, b]).mean()) for a, b in ((0, 1), (1, 0))
        ]
        return correlation < UNLIKE and min(shares) >= MIN_TURNS


def raised(mixing: Mixing, peak: float) -> Mixing:
    """With the gain that a recording of this peak needs."""
    if not NOTHING < peak < QUIET:
        return mixing
    gain = RAISED_TO / peak
    note = f"very quiet (peak {20 * np.log10(peak):.0f} dB): raised by {20 * np.log10(gain):.0f} dB"
    return replace(mixing, gain=gain, notes=note if mixing.notes is None else f"{mixing.notes}; {note}")


def mixing_by(gram_CC: NDArray[np.float64]) -> Mixing:
    """The choice for these energies."""
    energy_C = np.diag(gram_CC)
    if not np.isfinite(gram_CC).all() or not energy_C.max(initial=0.0) > 0:
        return Mixing()
    audible_C = energy_C > SILENT * energy_C.max()
    weights_C = audible_C / audible_C.sum()
    share = float(weights_C @ gram_CC @ weights_C) / float(energy_C[audible_C].mean())
    silent = [str(number) for number in np.flatnonzero(~audible_C)]
    notes = f"silent channels left out of the mix: {', '.join(silent)}" if silent else None
    if audible_C.sum() > 1 and share < CANCELLED:
        first, second = np.flatnonzero(audible_C)[:2]
        weights_C = np.zeros(len(energy_C))
        if audible_C.sum() == 2:
            weights_C[[first, second]] = 0.5, -0.5
            chosen = f"the difference of channels {first} and {second} was taken"
        else:
            weights_C[int(energy_C.argmax())] = 1.0
            chosen = f"channel {int(energy_C.argmax())} alone was taken"
        cancelled = f"channels cancel each other (their mean keeps {share:.1%} of the energy): {chosen}"
        notes = cancelled if notes is None else f"{notes}; {cancelled}"
    return Mixing() if notes is None else Mixing(weights_C.astype(np.float32), notes)
