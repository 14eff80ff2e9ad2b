"""One recording: encoded bytes -> 16 kHz int16 segments and an account of every second, in bounded memory."""

from __future__ import annotations

import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE, Form, resampled_length, samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.segmenter import Segmenter, SegmentSpec, segmenter
from audiomill.audio.cutting.stream_chunks import Span
from audiomill.audio.decode import open_audio
from audiomill.audio.forms import FormStream, SampleBuffer, missing
from audiomill.audio.mixing import Mixing, mixing_of
from audiomill.audio.opened import Audio
from audiomill.audio.resample import resample
from audiomill.audio.sound_measures import Envelope
from audiomill.audio.vad import speech_samples, voiced_frames
from audiomill.errors import RecordingRejected

MIN_MISSING_S = 0.1
"""A decoded length this close to the announced one is complete: encoders pad and trim by some frames."""
MIN_MISSING_SHARE = 0.005
LOUDEST = 1.5
"""Decoders of lossy formats go a little beyond full scale; more was written so."""
MAX_OBSOLETE = 10 * MODEL_SAMPLE_RATE
"""Samples that may stay in memory although nobody will ask for them: dropping them costs a copy."""


class Ending(NamedTuple):
    """The account of a recording that was read to its end. Counts: samples at 16 kHz; `envelope`: a level for each
    `envelope_s` seconds, see `audiomill.audio.sound_measures`; `notes`: what was done with unusual sound;
    `checksum`: CRC-32 of all samples."""

    origin: int
    num_samples: int
    speech_samples: int
    failed_samples: int
    sample_rate: int
    num_channels: int
    track: int | None
    error: str | None
    envelope: bytes
    envelope_s: float
    notes: str | None = None
    checksum: int = 0


@dataclass(frozen=True, kw_only=True)
class RecordingSpec:
    """What to read of a recording, and its limits. `channel`: the only one that is meant, where there are that many."""

    channels: str
    start_s: float | None
    duration_s: float | None
    min_s: float
    max_s: float
    track: str = "default"
    is_every_track: bool = False
    channel: int | None = None
    recording_id: str = ""
    language: str | None = None


@dataclass
class StageClock:
    """Seconds spent per stage, and a hook that is told of every step forward."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    on_progress: Callable[[], None] = lambda: None

    def timed(self, stage: str, blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Counts the time spent waiting for each block, less what inner stages count themselves."""
        while True:
            before, inner = time.perf_counter(), sum(self.seconds.values())
            block = next(blocks, None)
            self.seconds[stage] += time.perf_counter() - before - (sum(self.seconds.values()) - inner)
            self.on_progress()
            if block is None:
                return
            yield block


def cut_recording(
    handle: IO[bytes], spec: RecordingSpec, segments: SegmentSpec, clock: StageClock
) -> Iterator[Segment | Ending]:
    """Segments of one recording in time order per channel, then its ending.

    Args:
        handle: encoded audio, seekable.
        spec: span, channels and limits.
        segments: cutting rules.
        clock: where stage times are added.

    Raises:
        RecordingRejected: nothing of it can be used. Segments yielded before that do not count.
    """
    start_s = spec.start_s or 0.0
    longest_s = spec.max_s if spec.duration_s is None else min(spec.max_s, spec.duration_s)
    is_mixed = spec.channels == "mix" and spec.channel is None
    raises = segments.kind == "vad"  # other models hear what is there: vectors would change
    sampled = (handle, start_s, longest_s, spec.track, raises, clock.on_progress)
    mixing = mixing_of(*sampled) if is_mixed else Mixing()
    with open_audio(handle, start_s, spec.track) as audio:
        limit = None if spec.duration_s is None else int(spec.duration_s * audio.sample_rate + 0.5)
        if audio.num_announced is not None:
            _check_length(audio.num_announced if limit is None else min(limit, audio.num_announced), audio, spec)
        channels = _channels(spec, audio.num_channels)
        forms = [Form(*each) for each in segments.forms]
        streams = [[FormStream(form, channel, mixing, audio.sample_rate) for form in forms] for channel in channels]
        source = _Source(audio, limit, spec, mixing, channels, [stream for each in streams for stream in each])
        picked, num_picked = clock.timed("decode", source.blocks()), len(channels)
        origin = samples_from_seconds(start_s)
        tracks = [
            _Track(_empty(spec, channel, origin), segments, each)
            for channel, each in zip(channels, streams, strict=True)
        ]
        envelope, checksum = Envelope(), 0
        for block in clock.timed("resample", resample(picked, audio.sample_rate, num_picked)):
            pcm_TK = to_int16(block)
            before = time.perf_counter()
            ready = [each for index, track in enumerate(tracks) for each in track.push(pcm_TK[:, index])]
            clock.seconds["segment"] += time.perf_counter() - before
            envelope.push(pcm_TK)
            checksum = zlib.crc32(np.ascontiguousarray(pcm_TK).data, checksum)
            yield from ready
        source.check()
        before = time.perf_counter()
        ready = [each for track in tracks for each in track.finish()]
        clock.seconds["segment"] += time.perf_counter() - before
        yield from ready
        speech = _union_length([span for track in tracks for span in track.spans])
        yield source.ending(origin, speech, envelope)._replace(checksum=checksum)


def _empty(spec: RecordingSpec, channel: int | None, origin: int) -> Segment:
    """A segment without samples, at the start of the recording."""
    return Segment(np.zeros(0, np.int16), 0, 0, (spec.recording_id, channel), origin, spec.language)


def _channels(spec: RecordingSpec, count: int) -> list[int | None]:
    """Those that are cut one by one; None: all of them mixed."""
    if spec.channel is not None and spec.channel < count:
        return [spec.channel]
    if spec.channels == "mix":
        return [None]
    return [0] if spec.channels == "first" else list(range(count))


class _Source:
    """Decoded blocks of the chosen span and channels, checked and counted as they pass."""

    def __init__(
        self,
        audio: Audio,
        limit: int | None,
        spec: RecordingSpec,
        mixing: Mixing,
        channels: list[int | None],
        streams: list[FormStream],
    ) -> None:
        self._audio, self._limit, self._spec, self._mixing, self._channels = audio, limit, spec, mixing, channels
        self._streams = streams
        self.num_decoded, self._peak = 0, 0.0
        self._is_alike = len(channels) > 1  # until one channel differs

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        for block in self._audio.blocks_TK:
            if self._limit is not None:
                block = block[: self._limit - self.num_decoded]
            if not len(block):
                break
            if not np.isfinite(block).all():
                at = self.num_decoded + int(np.argmin(np.isfinite(block).all(axis=1)))
                raise RecordingRejected(
                    "decode",
                    "nan_samples",
                    f"expected finite samples, got NaN or infinity at {at / self._audio.sample_rate:.3f} s",
                )
            self.num_decoded += len(block)
            self._peak = max(self._peak, float(block.max()), -float(block.min()))
            _check_length(self.num_decoded, self._audio, self._spec, only_longest=True)
            for stream in self._streams:
                stream.push(block)
            yield self._picked(block)
        for stream in self._streams:
            stream.finish()

    def _picked(self, block_TC: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._channels == [None]:
            return self._mixing.mixed(block_TC)
        picked = block_TC[:, [channel or 0 for channel in self._channels]]
        self._is_alike = self._is_alike and bool((picked == picked[:, :1]).all())
        return picked

    def _notes(self) -> str | None:
        """What the row says of sound that was changed, or is not as it was asked for."""
        rate = self._audio.sample_rate
        notes = [*([self._mixing.notes] if self._mixing.notes else []), *self._audio.notes]
        if self._spec.channel is not None and self._channels != [self._spec.channel]:
            notes.append(
                f"the manifest means channel {self._spec.channel} of {self._audio.num_channels}: all are taken"
            )
        if self._is_alike:
            notes.append(f"all {len(self._channels)} channels hold the same sound; --channels mix hears it once")
        if self._peak > LOUDEST:
            notes.append(f"louder than full scale (peak {self._peak:.3g}): clipped")
        forms = sorted({stream.form for stream in self._streams})
        notes += missing(forms, rate, self._audio.num_channels, self._channels == [None])
        if self._limit is not None and self.num_decoded < self._limit - MIN_MISSING_S * rate:
            asked, there = self._limit / rate, self.num_decoded / rate
            notes.append(f"the span ends behind the audio: {asked:.3f} s asked for, {there:.3f} s there")
        return "; ".join(notes) or None

    def check(self) -> None:
        """Raises Rejected when too little came out."""
        audio, spec = self._audio, self._spec
        if self.num_decoded == 0:
            if spec.start_s and not audio.problems:
                raise RecordingRejected(
                    "decode", "offset_out_of_range", f"expected audio from {spec.start_s} s on, got none"
                )
            reason = "decode_failed" if audio.num_announced or audio.problems else "no_samples"
            raise RecordingRejected(
                "decode", reason, f"expected {audio.num_announced or 'some'} samples, got 0{_because(audio)}"
            )
        if self.num_decoded < spec.min_s * audio.sample_rate and (
            self._limit is None or self._limit < spec.min_s * audio.sample_rate
        ):
            self._too_short()

    def _too_short(self) -> None:
        raise RecordingRejected(
            "decode",
            "too_short",
            f"expected at least {self._spec.min_s} s, got {self.num_decoded / self._audio.sample_rate:.4f} s",
        )

    def ending(self, origin: int, speech_samples: int, envelope: Envelope) -> Ending:
        audio, rate = self._audio, self._audio.sample_rate
        expected = self.num_decoded
        if audio.num_announced is not None:
            expected = audio.num_announced if self._limit is None else min(self._limit, audio.num_announced)
        missing = expected - self.num_decoded  # what was found again behind a damage ends where lossy codecs end
        is_strict = audio.is_exact or (audio.problems and not audio.num_lost)
        tolerance = 0 if is_strict else max(MIN_MISSING_S * rate, MIN_MISSING_SHARE * expected)
        is_cut_off = missing > tolerance
        error = None
        if is_cut_off:
            error = f"truncated: expected {expected / rate:.3f} s, got {self.num_decoded / rate:.3f} s{_because(audio)}"
        elif audio.problems:
            error = f"damaged: {'; '.join(audio.problems)}"
        if audio.left_out is not None and not self._spec.is_every_track:
            error = audio.left_out if error is None else f"{error}; {audio.left_out}"
        decoded = resampled_length(self.num_decoded, rate)
        total = resampled_length(expected, rate) if is_cut_off else decoded
        lost = resampled_length(audio.num_lost, rate)
        speech, failed = min(speech_samples, decoded - lost), total - decoded + lost
        details = audio.num_channels, audio.track, error
        return Ending(origin, total, speech, failed, rate, *details, *envelope.finish(), self._notes())


class _Track:
    """One channel: its segmenter, and the samples that may still be asked for. `empty`: a segment without samples, at the
    start of the recording."""

    def __init__(self, empty: Segment, spec: SegmentSpec, streams: Sequence[FormStream] = ()) -> None:
        self._empty, self._spec, self._streams = empty, spec, streams
        self._cutter: Segmenter = segmenter(spec)
        self._kept = SampleBuffer()
        self._settled: list[Span] = []  # waiting for their right context
        self.spans: list[Span] = []

    def push(self, pcm_T: NDArray[np.int16]) -> list[Segment]:
        self._kept.push(pcm_T)
        self._settled += self._cutter.push(pcm_T)
        ready = []
        while self._settled and self._is_here(self._settled[0].stop + self._settled[0].right):
            ready.append(self._cut(self._settled.pop(0)))
        self._drop_before(min([self._cutter.keep_from, *(span.start - span.left for span in self._settled)]))
        return ready

    def finish(self) -> list[Segment]:
        self._settled += self._cutter.finish()
        end = self._kept.num_samples
        return [self._cut(span._replace(right=min(span.right, end - span.stop)), end) for span in self._settled]

    def _is_here(self, sample: int) -> bool:
        return sample <= self._kept.num_samples and all(stream.reaches(sample) for stream in self._streams)

    def _cut(self, span: Span, end: int | None = None) -> Segment:
        """A segment; `end`: of the recording, where it is known."""
        self.spans.append(Span(span.start, span.stop))
        first, last = span.start - span.left, span.stop + span.right
        pcm, spec, speech, vad_mask = self._kept.take(first, last), self._spec, None, None
        if spec.measures_speech:
            speech = speech_samples(pcm[span.left : len(pcm) - span.right], spec.threshold, spec.vad)
        if spec.marks_speech:
            vad_mask = voiced_frames(pcm, spec.threshold, spec.vad).tobytes()
        return self._empty._replace(
            pcm_T=pcm,
            left=span.left,
            right=span.right,
            start=self._empty.start + span.start,
            speech=speech,
            waves=tuple(stream.take(first, None if last == end else last) for stream in self._streams),
            vad_mask=vad_mask,
        )

    def _drop_before(self, sample: int) -> None:
        self._kept.drop_before(sample, MAX_OBSOLETE)
        for stream in self._streams:
            stream.drop_before(sample, MAX_OBSOLETE)


def _check_length(num_samples: int, audio: Audio, spec: RecordingSpec, only_longest: bool = False) -> None:
    seconds = num_samples / audio.sample_rate
    if seconds > spec.max_s:
        raise RecordingRejected(
            "decode",
            "too_long",
            f"expected at most {spec.max_s / 3600:g} h, got {seconds / 3600:.1f} h by header or decoding",
        )
    if not only_longest and 0 < seconds < spec.min_s:
        raise RecordingRejected("decode", "too_short", f"expected at least {spec.min_s} s, got {seconds:.4f} s")


def to_int16(block: NDArray[np.float32]) -> NDArray[np.int16]:
    """Rounds to the nearest step and clips: exact for 16-bit sources at 16 kHz."""
    pcm: NDArray[np.int16] = np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16)
    return pcm


def _union_length(spans: list[Span]) -> int:
    total = reached = 0
    for span in sorted(spans):
        total += max(0, span.stop - max(span.start, reached))
        reached = max(reached, span.stop)
    return total


def _because(audio: Audio) -> str:
    return f" ({'; '.join(audio.problems)})" if audio.problems else ""
