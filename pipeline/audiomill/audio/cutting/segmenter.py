"""Where to cut a recording: speech by voice activity, or windows. No model inside; works on a stream.

A segmenter is fed what arrives and answers with the spans that are settled. `keep_from` tells from which
sample on audio may still be asked for, so a recording of any length needs memory for one segment only.
Times are samples at 16 kHz from the start of the recording; spans are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.audio.cutting.stream_chunks import STREAM, Span, StreamChunks
from audiomill.audio.vad import FRAME_SAMPLES, SILERO, detector
from audiomill.config.stages import SegmentConfig
from audiomill.errors import UsageError

ENERGY_FRAME = MODEL_SAMPLE_RATE // 50
"""Windows without voice activity are cut at their quietest 20 ms."""
FRAME_GRID = 1280
"""80 ms: a multiple of every frame step of our CTC models (20 ms, 40 and 80 ms with adapters)."""
SPEECH_END_BELOW = 0.15
"""Speech ends when the probability is this much under the threshold (silero-vad's own hysteresis)."""


@dataclass(frozen=True, kw_only=True)
class SegmentSpec:
    """Settled cutting rules, in samples.

    `context` above 0: windows overlap and the model drops the overlap; `max_whole`: a recording up to this long is one
    segment of `fixed` and `none`; `grid`: windows with context start on multiples of it; `at_quiet_moments`: windows
    end where it is quiet; `measures_speech`: voice activity is measured in windows too; `marks_speech`: each segment says which
    of its frames have speech; `chunk` and `right`: of streams, whose `context` stands before a chunk alone; `forms`: rate and
    channels of what models are given beside 16 kHz, see `audiomill.audio.forms`; `vad`: detector of voice activity.
    """

    kind: str
    max_length: int
    context: int
    max_whole: int
    grid: int
    threshold: float
    min_speech: int
    min_silence: int
    pad: int
    max_gap: int
    at_quiet_moments: bool = False
    measures_speech: bool = False
    marks_speech: bool = False
    chunk: int = 0
    right: int = 0
    forms: tuple[tuple[int, int], ...] = ()
    vad: str = SILERO


class Segmenter(Protocol):
    """One channel of one recording."""

    @property
    def keep_from(self) -> int: ...

    def push(self, pcm_T: NDArray[np.int16]) -> list[Span]: ...

    def finish(self) -> list[Span]: ...


def segmenter(spec: SegmentSpec) -> Segmenter:
    """The segmenter that `--segment` names."""
    if spec.kind == "vad":
        return VadSegmenter(spec)
    if spec.kind == STREAM:
        return StreamChunks(spec.chunk, spec.context, spec.right)
    return QuietWindows(spec) if spec.at_quiet_moments or not spec.context else ContextWindows(spec)


class SpeechSpans:
    """Frame probabilities -> padded, merged, bounded speech spans."""

    def __init__(self, spec: SegmentSpec) -> None:
        self._spec = spec
        self._frame = 0
        self._start: int | None = None  # frame at which the running speech (or its uncut rest) starts
        self._silence: int | None = None  # first frame of a pause inside the running speech
        self._is_cut = False  # the running speech continues a forced cut: no padding, no minimum
        self._probabilities: list[float] = []  # of the running speech
        self._pending: Span | None = None  # may still be joined by what follows
        self._max_frames = (spec.max_length - 2 * spec.pad) // FRAME_SAMPLES
        self._min_silence = max(1, -(-max(spec.min_silence, spec.pad) // FRAME_SAMPLES))

    @property
    def keep_from(self) -> int:
        candidates = [self._frame * FRAME_SAMPLES - self._spec.pad]
        if self._start is not None:
            candidates.append(self._start * FRAME_SAMPLES - self._spec.pad)
        if self._pending is not None:
            candidates.append(self._pending.start)
        return max(0, min(candidates))

    def push(self, probabilities_F: NDArray[np.float32]) -> list[Span]:
        settled: list[Span] = []
        for probability in probabilities_F.tolist():
            self._step(probability, settled)
            self._frame += 1
        return settled

    def finish(self, num_samples: int) -> list[Span]:
        settled: list[Span] = []
        if self._start is not None:
            self._close(self._frame if self._silence is None else self._silence, settled)
        if self._pending is not None:
            settled.append(self._pending)
            self._pending = None
        clipped = [Span(span.start, min(span.stop, num_samples)) for span in settled]
        return [span for span in clipped if span.stop > span.start]

    def _step(self, probability: float, settled: list[Span]) -> None:
        if self._start is None:
            if probability >= self._spec.threshold:
                self._start, self._silence, self._is_cut, self._probabilities = self._frame, None, False, [probability]
            self._settle_pending((self._frame if self._start is None else self._start) * FRAME_SAMPLES, settled)
            return
        self._probabilities.append(probability)
        if probability >= self._spec.threshold:
            self._silence = None
        elif probability < self._spec.threshold - SPEECH_END_BELOW and self._silence is None:
            self._silence = self._frame
        if self._silence is not None and self._frame + 1 - self._silence >= self._min_silence:
            self._close(self._silence, settled)
        elif len(self._probabilities) >= self._max_frames:
            self._cut(settled)

    def _settle_pending(self, upto: int, settled: list[Span]) -> None:
        """Nothing that starts at `upto` or later can join a segment that ended too long ago."""
        if self._pending is not None and upto - self._spec.pad - self._pending.stop > self._spec.max_gap:
            settled.append(self._pending)
            self._pending = None

    def _cut(self, settled: list[Span]) -> None:
        """Speech without a pause: cut where speech is least likely, in the second half of the window."""
        assert self._start is not None
        half = self._max_frames // 2
        tail = np.asarray(self._probabilities[half:])
        at = half + int(len(tail) - 1 - np.argmin(tail[::-1]))
        self._add(self._start, self._start + at, 0, settled)
        self._start += at
        self._probabilities = self._probabilities[at:]
        self._is_cut = True

    def _close(self, stop: int, settled: list[Span]) -> None:
        assert self._start is not None
        if self._is_cut or (stop - self._start) * FRAME_SAMPLES >= self._spec.min_speech:
            self._add(self._start, stop, self._spec.pad, settled)
        self._start = self._silence = None

    def _add(self, start_frame: int, stop_frame: int, pad_after: int, settled: list[Span]) -> None:
        start = max(0, start_frame * FRAME_SAMPLES - (0 if self._is_cut else self._spec.pad))
        stop = stop_frame * FRAME_SAMPLES + pad_after
        if self._pending is not None:
            start = max(start, self._pending.stop)
            if start - self._pending.stop <= self._spec.max_gap and stop - self._pending.start <= self._spec.max_length:
                self._pending = Span(self._pending.start, stop)
                return
            settled.append(self._pending)
        self._pending = Span(start, stop)


class VadSegmenter:
    """Speech by a detector of voice activity, cut at silences."""

    def __init__(self, spec: SegmentSpec) -> None:
        self._probabilities, self._spans, self._num_samples = detector(spec.vad), SpeechSpans(spec), 0

    @property
    def keep_from(self) -> int:
        return self._spans.keep_from

    def push(self, pcm_T: NDArray[np.int16]) -> list[Span]:
        self._num_samples += len(pcm_T)
        return self._spans.push(self._probabilities.push(pcm_T))

    def finish(self) -> list[Span]:
        return self._spans.push(self._probabilities.finish()) + self._spans.finish(self._num_samples)


class QuietWindows:
    """Windows cut at the quietest moment of their last third, with context around if wanted. Nothing is left out."""

    def __init__(self, spec: SegmentSpec) -> None:
        self._spec = spec
        self._core = spec.max_length - 2 * spec.context
        self._start = 0
        self._waiting = np.zeros(0, np.int16)  # from `_start` on

    @property
    def keep_from(self) -> int:
        return max(0, self._start - self._spec.context)

    def push(self, pcm_T: NDArray[np.int16]) -> list[Span]:
        self._waiting = np.concatenate([self._waiting, pcm_T])
        context, spans = self._spec.context, []
        while len(self._waiting) > (self._spec.max_whole if self._start == 0 else self._core + context):
            at = self._quietest()
            spans.append(Span(self._start, self._start + at, min(context, self._start), context))
            self._start += at
            self._waiting = self._waiting[at:]
        return spans

    def finish(self) -> list[Span]:
        stop = self._start + len(self._waiting)
        return [Span(self._start, stop, min(self._spec.context, self._start))] if len(self._waiting) else []

    def _quietest(self) -> int:
        first = self._core * 2 // 3
        tail = self._waiting[first : self._core].astype(np.float32)
        whole = len(tail) // ENERGY_FRAME * ENERGY_FRAME
        if whole == 0:
            return self._core
        energy = np.square(tail[:whole]).reshape(-1, ENERGY_FRAME).mean(axis=1)
        frame = len(energy) - 1 - int(np.argmin(energy[::-1]))
        at = first + frame * ENERGY_FRAME + ENERGY_FRAME // 2
        return max(1, at // self._spec.grid) * self._spec.grid if self._spec.context else at


class ContextWindows:
    """Equal windows with context on both sides; the model drops the context in frames.

    A recording that fits `max_whole` is one span. Otherwise cores of `max_length - 2 * context` follow each
    other without gap or overlap; the last one takes the rest.
    """

    def __init__(self, spec: SegmentSpec) -> None:
        self._context = spec.context
        self._core = spec.max_length - 2 * spec.context
        self._max = spec.max_whole
        self._num_samples = 0
        self._start = 0

    @property
    def keep_from(self) -> int:
        return max(0, self._start - self._context)

    def push(self, pcm_T: NDArray[np.int16]) -> list[Span]:
        self._num_samples += len(pcm_T)
        spans: list[Span] = []
        while self._num_samples > (self._max if self._start == 0 else self._start + self._core + self._context):
            spans.append(Span(self._start, self._start + self._core, min(self._context, self._start), self._context))
            self._start += self._core
        return spans

    def finish(self) -> list[Span]:
        if self._start == self._num_samples:
            return []
        return [Span(self._start, self._num_samples, min(self._context, self._start), 0)]


def spec_from_seconds(
    config: SegmentConfig,
    kind: str,
    max_length_s: float,
    context_s: float = 0.0,
    max_whole_s: float | None = None,
    frames_in_step: int = 1,
) -> SegmentSpec:
    """Cutting rules with seconds turned into samples.

    Overlapping windows start on whole model frames (and on whole groups of `frames_in_step`), so that dropping the
    overlap leaves every frame once.

    Args:
        config: voice activity, pauses and gaps.
        kind: as `--segment`, settled.
        max_length_s: longest segment.
        context_s: overlap of windows on each side.
        max_whole_s: longest recording that is one segment.
        frames_in_step: frames that are kept together.

    Raises:
        UsageError: groups of frames longer than a window's core.
    """
    max_length, context = samples_from_seconds(max_length_s), samples_from_seconds(context_s)
    max_whole = samples_from_seconds(max_length_s if max_whole_s is None else max_whole_s)
    grid = FRAME_GRID * frames_in_step
    if context:
        context = context // FRAME_GRID * FRAME_GRID
        core = (max_length - 2 * context) // grid * grid
        if core <= 0:
            raise UsageError(
                f"--frame-stride {frames_in_step}: expected to fit a window of --max-segment-seconds less twice --chunk-overlap-seconds"
            )
        max_length = core + 2 * context
        max_whole = max(max_length, max_whole)
    return SegmentSpec(
        kind=kind,
        max_length=max_length,
        context=context,
        max_whole=max_whole,
        grid=grid,
        threshold=config.vad_threshold,
        vad=config.vad,
        min_speech=samples_from_seconds(config.min_speech_seconds),
        min_silence=samples_from_seconds(config.min_silence_seconds),
        pad=samples_from_seconds(config.speech_pad_seconds),
        max_gap=samples_from_seconds(config.max_gap_seconds),
    )


def whole_spec(seconds: float) -> SegmentSpec:
    """A recording is one segment up to this long."""
    return spec_from_seconds(SegmentConfig(), "none", seconds)
