"""The decode process, started by `audiomill.stages.sandbox`. A crash, hang or memory bomb ends only this.

Protocol, without pickle: JSON lines on stdin (settings, which hold until the next ones, and questions); on stdout one
JSON line per event, followed by the event's PCM bytes if it has any. A timer without handler ends the process
when a decoder makes no progress, even inside C code. It counts the seconds that the process computes, which a busy
machine does not make more; the wall clock, ten times as patient, ends what waits for ever.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.segmenter import SegmentSpec
from audiomill.audio.decode import planned_duration_s
from audiomill.audio.ffmpeg import tracks_of
from audiomill.audio.recording import StageClock
from audiomill.config.defaults import WALL_FACTOR
from audiomill.config.stages import DecodeConfig
from audiomill.errors import RecordingRejected
from audiomill.sources.shards import ShardReader
from audiomill.stages.read import Finished, read_recording


def main() -> None:
    """Serves until stdin closes."""
    requests, answers = sys.stdin.buffer, _private_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    reader: ShardReader | None = None
    for line in requests:
        question = json.loads(line)
        if question["ask"] == "settings":
            decode, segments = DecodeConfig(**question["decode"]), SegmentSpec(**question["segments"])
            if reader is not None:
                reader.close()
            reader = ShardReader(question["storage_options"], decode.audio_column)
            _limit_memory(int(decode.decode_memory_gb * 2**30))
            continue
        assert reader is not None, "settings come first"
        if question["ask"] in LOOKS:
            look, otherwise = LOOKS[question["ask"]]
            results = [_looked_at(row, reader, decode.decode_timeout, look, otherwise) for row in question["rows"]]
            _send(answers, {question["ask"]: results})
        else:
            _serve(question["row"], reader, decode, segments, answers)


def _limit_memory(limit: int) -> None:
    """For what follows; later settings may want more."""
    if sys.platform == "linux":  # elsewhere the kernel does not enforce it, or refuses
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


Look = Callable[[dict[str, Any], ShardReader], Any]


def _at_header(look: Callable[[IO[bytes]], Any]) -> Look:
    def looked(row: dict[str, Any], reader: ShardReader) -> Any:
        with reader.open(row["source"], row["kind"], row["position"], row["size"]) as handle:
            return look(handle)

    return looked


LOOKS: dict[str, tuple[Look, Any]] = {
    "durations": (_at_header(planned_duration_s), None),
    "tracks": (_at_header(tracks_of), (0, 0)),
    "rows": (lambda row, reader: reader.rows(row["source"], row["position"]), None),
}
"""What is asked before recordings are read, and the answer where that fails: the read stage will name what is wrong."""


def _looked_at(row: dict[str, Any], reader: ShardReader, timeout_s: float, look: Look, otherwise: Any) -> Any:
    _expect_progress_within(timeout_s)
    try:
        return look(row, reader)
    except (OSError, ValueError, pa.ArrowException):
        return otherwise
    finally:
        _expect_progress_within(0)


def _expect_progress_within(seconds: float) -> None:
    """Starts the timers anew; 0: stops them."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WALL_FACTOR * seconds)


def _serve(
    row: dict[str, Any], reader: ShardReader, decode: DecodeConfig, segments: SegmentSpec, answers: IO[bytes]
) -> None:
    def progress() -> None:
        _expect_progress_within(decode.decode_timeout)

    progress()
    try:
        for event in read_recording(row, reader, decode, segments, StageClock(on_progress=progress)):
            _expect_progress_within(0)  # a busy reader of our answers is no hang
            _answer(event, answers)
            progress()
    except RecordingRejected as rejected:
        _expect_progress_within(0)
        _send(
            answers, {"kind": "rejected", "stage": rejected.stage, "reason": rejected.reason, "detail": rejected.detail}
        )
    _expect_progress_within(0)


def _answer(event: Segment | Finished, answers: IO[bytes]) -> None:
    if isinstance(event, Segment):
        sounds: list[NDArray[Any]] = [event.pcm_T, *event.waves]
        header = {
            "kind": "segment",
            "fields": {name: getattr(event, name) for name in ("left", "right", "channel", "start", "speech")},
            "shapes": [wave_TK.shape for wave_TK in event.waves],
            "num_voiced": None if event.vad_mask is None else len(event.vad_mask),
            "num_bytes": sum(sound.nbytes for sound in sounds) + len(event.vad_mask or b""),
        }
        _send(answers, header, *sounds, event.vad_mask or b"")
    else:
        fields, envelope = event.ending._asdict(), event.ending.envelope
        del fields["envelope"]
        _send(answers, {"kind": "finished", "ending": fields, "rest": event[1:], "num_bytes": len(envelope)}, envelope)


def _send(answers: IO[bytes], header: dict[str, Any], *payload: Any) -> None:
    answers.write(json.dumps(header).encode() + b"\n")
    for each in payload:
        answers.write(np.ascontiguousarray(each).data if isinstance(each, np.ndarray) else each)
    answers.flush()


def _private_stdout() -> IO[bytes]:
    """Moves the answers to a descriptor of their own, so that a chatty C library cannot break the protocol."""
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private
