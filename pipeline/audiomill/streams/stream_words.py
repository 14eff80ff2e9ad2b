"""What streams give, and what a way of hearing must know."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment


class StreamWord(NamedTuple):
    """A word of a stream. Times in seconds from the stream's start.

    `is_final`: it does not change any more; else a later word from `start_s` on takes its place. `emitted_s`: when it was told,
    counted in audio that had come, and seconds that were computed since.
    """

    text: str
    start_s: float
    stop_s: float
    is_final: bool
    emitted_s: float


class StreamLook(NamedTuple):
    """Words of a look, in samples on the stream's clock: those that are final now, and those that may change."""

    final: tuple[tuple[str, int, int], ...] = ()
    partial: tuple[tuple[str, int, int], ...] = ()


class StreamingPolicy(Protocol):
    """State of one stream on one kind of model: told of audio, it says what the model should look at."""

    def due(self, chunk_T: NDArray[np.int16], is_last: bool) -> Segment | None:
        """Takes the next chunk; what to look at now, None: nothing."""
        ...

    def rest(self) -> Segment | None:
        """What is left to look at once the last chunk was taken."""
        ...

    def accept(self, segment: Segment, text: Any) -> StreamLook:
        """Takes what the model made of what was due."""
        ...

    def finish(self) -> StreamLook:
        """No more audio comes: all words are final."""
        ...
