"""One segment of a recording with its audio: the value that passes from cutting through the models to the rows of the tables.

T samples, K channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.vad import FRAME_SAMPLES


class Segment(NamedTuple):
    """What is known of one segment.

    Attributes:
        pcm_T: int16 at 16 kHz, with the context.
        left: samples of `pcm_T` that are context, at its start.
        right: the same at its end.
        track: recording id and channel; channel None: all of them mixed.
        start: first sample behind the left context, on the recording's clock.
        language: code, None where it is not known.
        speech: samples with voice activity, None where it was not measured.
        waves: the same sound as float32 in each form that a model wants (see `audiomill.audio.forms`); a model is given
            its own alone.
        vad_mask: a byte for every 512 samples of `pcm_T`, 1 where there is voice activity; None where nobody asked.
        is_overlap_copy: computed only so that the words of its neighbours are whole; it gives no row.
        language_probability: of `language`, where it was identified from the sound.
    """

    pcm_T: NDArray[np.int16]
    left: int
    right: int
    track: tuple[str, int | None]
    start: int
    language: str | None = None
    speech: int | None = None
    waves: tuple[NDArray[np.float32], ...] = ()
    vad_mask: bytes | None = None
    is_overlap_copy: bool = False
    language_probability: float | None = None

    @property
    def recording_id(self) -> str:
        return self.track[0]

    @property
    def channel(self) -> int | None:
        return self.track[1]

    @property
    def num_samples(self) -> int:
        """Without the context."""
        return len(self.pcm_T) - self.left - self.right

    @property
    def stop(self) -> int:
        """First sample behind the segment, on the recording's clock."""
        return self.start + self.num_samples

    @property
    def seconds(self) -> float:
        """Without the context."""
        return self.num_samples / MODEL_SAMPLE_RATE

    @property
    def id(self) -> str:
        """Recording id, channel and start sample."""
        channel = "" if self.channel is None else f"-c{self.channel}"
        return f"{self.recording_id}{channel}-{self.start:010d}"

    @property
    def wave_TK(self) -> NDArray[np.float32]:  # noqa: N802 (its shape)
        """The sound in the only form that it has."""
        (wave_TK,) = self.waves
        return wave_TK

    @property
    def core(self) -> Segment:
        """The segment without its context."""
        if not self.left and not self.right:
            return self
        stop = len(self.pcm_T) - self.right
        vad_mask = self.vad_mask and self.vad_mask[self.left // FRAME_SAMPLES : -(-stop // FRAME_SAMPLES)]
        return self._replace(pcm_T=self.pcm_T[self.left : stop], left=0, right=0, vad_mask=vad_mask)

    def in_form(self, number: int) -> Segment:
        """As a model hears it whose form is this one of `waves`."""
        return self._replace(waves=(self.waves[number],))

    def cut_at(self, edges: Sequence[int]) -> list[Segment]:
        """Views of the parts of a segment without context.

        Args:
            edges: samples of the segment, its start and end among them, at whole frames of voice activity.
        """
        assert not self.left and not self.right, "a segment with context is cut nowhere else"
        return [self] if len(edges) == 2 else [self._part(*pair) for pair in pairwise(edges)]

    def _part(self, first: int, last: int) -> Segment:
        whole = len(self.pcm_T)
        return self._replace(
            pcm_T=self.pcm_T[first:last],
            start=self.start + first,
            waves=tuple(
                each[round(first * len(each) / whole) : round(last * len(each) / whole)] for each in self.waves
            ),
            vad_mask=self.vad_mask and self.vad_mask[first // FRAME_SAMPLES : -(-last // FRAME_SAMPLES)],
        )
