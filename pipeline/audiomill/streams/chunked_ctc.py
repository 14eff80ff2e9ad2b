"""Streams of CTC models: a chunk with audio around it, of whose frames the chunk's own are kept.

T samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.audio.cutting.segment import Segment
from audiomill.models.base import Transcript
from audiomill.streams.stream_words import StreamLook

PAUSE = int(0.4 * MODEL_SAMPLE_RATE)
"""Behind a word this long without a letter, it is over."""


class ChunkedCtc:
    """See `audiomill.streams.stream_words.StreamingPolicy`.

    Args:
        name: of the stream.
        left, right: samples around a chunk; `left` a multiple of the model's step.
        transcripts: the model's: neighbouring windows become one text.
    """

    def __init__(
        self,
        name: str,
        left: int,
        right: int,
        transcripts: Callable[[Sequence[Segment], Sequence[Any]], list[Transcript]],
    ) -> None:
        self._name, self._left, self._right, self._transcripts = name, left, right, transcripts
        self._pcm_T = np.zeros(0, np.int16)  # what may still be shown
        self._from = 0  # its first sample on the stream's clock
        self._chunk = 0  # first sample of the chunk that is looked at next
        self._length = 0  # of that chunk, once it is whole
        self._waiting: list[int] = []  # lengths of chunks that lack audio behind them
        self._is_last = False
        self._seen: list[tuple[Segment, Any]] = []
        self._told = 0  # stop of the last final word

    def due(self, chunk_T: NDArray[np.int16], is_last: bool) -> Segment | None:
        self._pcm_T = np.concatenate([self._pcm_T, chunk_T])
        self._is_last = is_last
        if len(chunk_T):
            self._waiting.append(len(chunk_T))
        return self._next()

    def rest(self) -> Segment | None:
        return self._next()

    def _next(self) -> Segment | None:
        """The oldest chunk, if what stands behind it has come."""
        if not self._waiting:
            return None
        stop = self._chunk + self._waiting[0]
        have = self._from + len(self._pcm_T)
        if have < stop + self._right and not self._is_last:
            return None
        left = min(self._left, self._chunk - self._from)
        # The last chunk ends the recording: all its frames are its own.
        ends = len(self._waiting) == 1 and self._is_last
        right = 0 if ends else min(self._right, have - stop)
        first = self._chunk - left - self._from
        shown_T = self._pcm_T[first : stop + right - self._from].copy()
        segment = Segment(shown_T, left, right, (self._name, None), self._chunk, None)
        self._waiting.pop(0)
        self._chunk = stop
        dropped = max(0, self._chunk - self._left - self._from)
        self._pcm_T, self._from = self._pcm_T[dropped:], self._from + dropped
        return segment

    def accept(self, segment: Segment, text: Any) -> StreamLook:
        self._seen.append((segment, text))
        stop = segment.start + len(segment.pcm_T) - segment.left - segment.right
        # What stands behind the chunk tells whether its last word is over.
        self._seen[-1] = (segment._replace(right=0), text)
        words = self._words()
        self._seen[-1] = (segment, text)
        ends = [*(start for _, start, _ in words[1:]), stop + segment.right - PAUSE][: len(words)]
        final = [word for word, end in zip(words, ends, strict=True) if word[2] <= min(stop, end)]
        rest = [word for word in words[len(final) :] if word[1] < stop]
        if final:
            self._told = final[-1][2]
        self._forget(rest[0][1] if rest else stop)
        return StreamLook(tuple(final), tuple(rest))

    def finish(self) -> StreamLook:
        final, self._seen = tuple(self._words()), []
        return StreamLook(final)

    def _words(self) -> list[tuple[str, int, int]]:
        """Of the windows that are kept, behind those that were told."""
        words = []
        segments = [segment for segment, _ in self._seen]
        texts = self._transcripts(segments, [text for _, text in self._seen]) if self._seen else []
        for segment, transcript in zip(segments, texts, strict=True):
            for word in transcript.words or ():
                start, stop = segment.start + word.start, segment.start + word.stop
                if start >= self._told:
                    words.append((word.text, start, stop))
        return words

    def _forget(self, before: int) -> None:
        """Windows that hold nothing of a word which may still change."""
        remaining = [
            (segment, text)
            for segment, text in self._seen
            if segment.start + len(segment.pcm_T) - segment.left - segment.right > before
        ]
        self._seen = remaining
