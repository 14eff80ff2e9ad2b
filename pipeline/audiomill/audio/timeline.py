"""Where decoded frames lie on the recording's time line: gaps are silence, and so is what could not be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from audiomill.audio.opened import BLOCK_FRAMES, Audio

MIN_GAP_S, MAX_GAP_S = 0.1, 3600.0
"""Gaps between packets that are silence: shorter ones are rounding, longer ones a clock that was set to another time."""
TIMED_FORMATS = ("mov", "matroska", "asf", "avi", "mpegts", "mpeg", "flv")
"""Containers whose packets carry the time at which they are to be heard."""
ARBITRARY_START = ("mpegts", "mpeg", "asf", "flv")
"""Those whose clock does not begin with the recording."""


class Lost(NamedTuple):
    """A packet that could not be decoded, with the seconds that it should have given; or, with 0 s, a place at which the
    container itself is damaged."""

    seconds: float
    problem: str


class Clock:
    """Where frames lie on the recording's time line. `zero_s`: the time stamp at which it begins; `has_timestamps`: whether time
    stamps can be believed in this container."""

    def __init__(self, container: Any, stream: Any) -> None:
        name = container.format.name
        self.has_timestamps = any(each in name for each in TIMED_FORMATS)
        counts_from_start = any(each in name for each in ARBITRARY_START)
        begin = container.start_time
        self.zero_s = begin / av.time_base if counts_from_start and begin is not None else 0.0
        self.start_s = 0.0
        if self.has_timestamps and stream.start_time is not None:
            self.start_s = max(0.0, float(stream.start_time * stream.time_base) - self.zero_s)

    def sample_of(self, frame: Any) -> int | None:
        """Position of a frame; None where it does not tell."""
        if frame.pts is None:
            return None
        seconds: float = float(frame.pts * frame.time_base) - self.zero_s
        return round(seconds * int(frame.sample_rate))


class TimeLine:
    """Planar float blocks, all at the first frame's rate and layout, each frame at its time. What lies before the start is
    left out; where there are no packets, or none that can be decoded, there is silence.

    Args:
        first: frame.
        start_s: of what is wanted.
        has_sought: whether the first frame is not the file's first.
        clock: of the container.
        audio: where lost frames and damage are told.
        lost_s: seconds of packets before the first frame that could not be decoded.
    """

    def __init__(self, first: Any, start_s: float, has_sought: bool, clock: Clock, audio: Audio, lost_s: float) -> None:
        self._rate, self._layout, self._kind = first.sample_rate, first.layout, _kind(first)
        self._clock, self._audio, self._damage = clock, audio, ""
        self._renew()
        self._shift = 0  # samples, added to what time stamps say since the clock jumped
        self._reached = 0  # of the next sample that is decoded
        at = clock.sample_of(first) if has_sought or clock.has_timestamps else None
        if at is not None and not has_sought and abs(at) > MAX_GAP_S * self._rate:
            self._jump(at)
            at = 0
        self._position = int(start_s * self._rate + 0.5)  # of the next sample that is given
        self._reached = max(0, at or 0)
        if not has_sought:
            lost = round(lost_s * self._rate)
            audio.num_lost += max(0, lost - self._position)
            self._reached = max(self._reached, lost)

    def blocks(self, frames: Iterator[Any]) -> Iterator[NDArray[np.float32]]:
        """Blocks of about `BLOCK_FRAMES`.

        Args:
            frames: all, with what is lost between them.
        """
        waiting: list[NDArray[np.float32]] = []
        for piece in self._pieces(frames):
            waiting.append(piece)
            if sum(map(len, waiting)) >= BLOCK_FRAMES:
                yield np.concatenate(waiting)
                waiting = []
        if sum(map(len, waiting)):
            yield np.concatenate(waiting)

    def _pieces(self, frames: Iterator[Any]) -> Iterator[NDArray[np.float32]]:
        yield from silence(self._reached - self._position, self._layout.nb_channels)
        self._position = max(self._position, self._reached)
        for frame in frames:
            if isinstance(frame, Lost):
                yield from self._lost(frame)
                continue
            yield from self._until(frame)
            yield from self._converted(frame)
        yield from self._converted(None)

    def _lost(self, lost: Lost) -> Iterator[NDArray[np.float32]]:
        self._damage = lost.problem
        if lost.seconds:
            yield from self._converted(None)
            self._renew()
            yield from self._silent(round(lost.seconds * self._rate), is_lost=True)

    def _until(self, frame: Any) -> Iterator[NDArray[np.float32]]:
        """What lies before a frame that does not begin where the one before it ended."""
        stated = (
            self._clock.sample_of(frame) if self._clock.has_timestamps and frame.sample_rate == self._rate else None
        )
        gap = 0 if stated is None else stated + self._shift - self._reached
        if abs(gap) > MAX_GAP_S * self._rate:
            self._jump(gap)
            gap = 0
        is_gap = gap > MIN_GAP_S * self._rate
        if is_gap or _kind(frame) != self._kind:  # a station changes its rate or layout between two programmes
            yield from self._converted(None)
            self._renew()
            self._kind = _kind(frame)
        if is_gap:
            if self._damage:  # the container lost its thread there; else the recording has a pause
                start_s, stop_s = self._reached / self._rate, (self._reached + gap) / self._rate
                self._audio.problems.append(f"nothing between {start_s:.3f} and {stop_s:.3f} s ({self._damage})")
            yield from self._silent(gap, is_lost=bool(self._damage))
        self._damage = ""

    def _jump(self, gap: int) -> None:
        """The clock was set to another time: the sound goes on where it is, and no stated length holds."""
        self._shift -= gap
        self._audio.num_announced = None
        at_s = self._reached / self._rate
        self._audio.notes.append(f"time stamps jump by {gap / self._rate:.0f} s at {at_s:.3f} s: taken as no pause")

    def _renew(self) -> None:
        self._convert = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)

    def _converted(self, frame: Any) -> Iterator[NDArray[np.float32]]:
        """Of a frame; None: what is left of those before."""
        for each in self._convert.resample(frame):
            yield self._placed(each.to_ndarray().T)

    def _silent(self, count: int, is_lost: bool) -> Iterator[NDArray[np.float32]]:
        for each in silence(count, self._layout.nb_channels):
            placed = self._placed(each)
            self._audio.num_lost += len(placed) if is_lost else 0
            yield placed

    def _placed(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        rest = block[max(0, min(len(block), self._position - self._reached)) :]
        self._reached += len(block)
        self._position = max(self._position, self._reached)
        return rest


def _kind(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def silence(count: int, num_channels: int) -> Iterator[NDArray[np.float32]]:
    for done in range(0, max(0, count), BLOCK_FRAMES):
        yield np.zeros((min(BLOCK_FRAMES, count - done), num_channels), np.float32)
