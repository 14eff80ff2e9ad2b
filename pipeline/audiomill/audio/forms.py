"""Sound as models hear it that take more than 16 kHz, one channel and 16 bits: beside the segments, from one decode.

K channels of a form, C of the source, T samples at the form's rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import Form
from audiomill.audio.mixing import Mixing
from audiomill.audio.resample import Resampler


class SampleBuffer:
    """Samples of a stream that may still be asked for."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[Any]] = []
        self._from = self.num_samples = 0

    @property
    def num_held(self) -> int:
        """In memory."""
        return sum(map(len, self._blocks))

    def push(self, block: NDArray[Any]) -> None:
        """Takes what follows."""
        self._blocks.append(block)
        self.num_samples += len(block)

    def take(self, first: int, last: int) -> NDArray[Any]:
        """These samples; nobody changes them."""
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        result: NDArray[Any] = self._blocks[0][first - self._from : last - self._from]
        return result if len(result) == len(self._blocks[0]) else result.copy()

    def drop_before(self, sample: int, tolerated: int) -> None:
        """Nobody will ask for what is before; `tolerated`: so much of it may stay, because dropping it costs a copy."""
        while self._blocks and self._from + len(self._blocks[0]) <= sample:
            self._from += len(self._blocks.pop(0))
        obsolete = sample - self._from
        if self._blocks and obsolete > tolerated:  # a copy, so that the long array can go
            self._blocks[0] = self._blocks[0][obsolete:].copy()
            self._from = sample


class FormStream:
    """One channel of a recording (or all of them mixed) in one form.

    Args:
        form: wanted.
        channel: of the source; None: the mix.
        mixing: how channels become one; vectors and codes hear a quiet recording as it is, so nothing is raised.
        source_rate: Hz.
    """

    def __init__(self, form: Form, channel: int | None, mixing: Mixing, source_rate: int) -> None:
        self.form, self._channel, self._mixing = form, channel, replace(mixing, gain=1.0)
        self._resampler = Resampler(source_rate, form.num_channels, form.rate)
        self._kept = SampleBuffer()

    def push(self, block_TC: NDArray[np.float32]) -> None:
        """Takes a decoded block with all channels of the source."""
        self._kept.push(self._resampler.push(self._chosen(block_TC)))

    def finish(self) -> None:
        """Nothing follows."""
        self._kept.push(self._resampler.finish())

    def reaches(self, sample: int) -> bool:
        """Whether a sample at 16 kHz has arrived."""
        return self._kept.num_samples >= self.form.position(sample)

    def take(self, first: int, last: int | None) -> NDArray[np.float32]:
        """wave_TK between two samples at 16 kHz; None: to the end."""
        stop = self._kept.num_samples if last is None else self.form.position(last)
        result: NDArray[np.float32] = self._kept.take(self.form.position(first), stop)
        return result

    def drop_before(self, sample: int, tolerated: int) -> None:
        """See `SampleBuffer.drop_before`; samples at 16 kHz."""
        self._kept.drop_before(self.form.position(sample), self.form.position(tolerated))

    def _chosen(self, block_TC: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._channel is None and block_TC.shape[1] == self.form.num_channels:
            return block_TC
        one = self._mixing.mixed(block_TC) if self._channel is None else block_TC[:, [self._channel]]
        return one if self.form.num_channels == 1 else np.repeat(one, self.form.num_channels, axis=1)


def missing(forms: Sequence[Form], source_rate: int, num_channels: int, is_mixed: bool) -> list[str]:
    """What a source does not have that forms take, in words."""
    problems = [
        f"{source_rate} Hz do not reach the {form.rate} Hz of a model: it hears nothing above {source_rate / 2:g} Hz"
        for form in forms
        if source_rate < form.rate
    ]
    if any(form.num_channels > 1 for form in forms) and not (is_mixed and num_channels == 2):
        problems.append("one channel for a model of two: it was given twice")
    return problems
