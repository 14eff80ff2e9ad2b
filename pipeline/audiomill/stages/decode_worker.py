"""The decode process, started by `audiomill.stages.sandbox`. A crash, hang or memory bomb ends only this.

Protocol, without pickle: a message is JSON (settings, which hold until the next ones, and questions); an answer is JSON a
message, one an event, followed by the event's sound, a message each. A timer without handler ends the process
when a decoder makes no progress, even inside C code. It counts the seconds that the process computes, which a busy
machine does not make more; the wall clock, ten times as patient, ends what waits for ever.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable
from typing import IO, Any

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
from audiomill.stages.child_processes import parent_channel
from audiomill.stages.read import Finished, read_recording


def main() -> None:
    """Serves until stdin closes."""
    channel = parent_channel()
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    reader: ShardReader | None = None
    while (question := _question(channel)) is not None:
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
            _send(channel, {question["ask"]: results})
        else:
            _serve(question["row"], reader, decode, segments, channel)


def _question(channel: Any) -> dict[str, Any] | None:
    """The next one; None: the parent is gone."""
    try:
        question: dict[str, Any] = json.loads(channel.recv_bytes())
    except EOFError:
        return None
    return question


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


def _serve(row: dict[str, Any], reader: ShardReader, decode: DecodeConfig, segments: SegmentSpec, channel: Any) -> None:
    def progress() -> None:
        _expect_progress_within(decode.decode_timeout)

    progress()
    try:
        for event in read_recording(row, reader, decode, segments, StageClock(on_progress=progress)):
            _expect_progress_within(0)  # a busy reader of our answers is no hang
            _answer(event, channel)
            progress()
    except RecordingRejected as rejected:
        _expect_progress_within(0)
        _send(
            channel, {"kind": "rejected", "stage": rejected.stage, "reason": rejected.reason, "detail": rejected.detail}
        )
    _expect_progress_within(0)


def _answer(event: Segment | Finished, channel: Any) -> None:
    if isinstance(event, Segment):
        sounds: list[NDArray[Any]] = [event.pcm_T, *event.waves]
        masks = [] if event.vad_mask is None else [event.vad_mask]
        header = {
            "kind": "segment",
            "fields": {name: getattr(event, name) for name in ("left", "right", "channel", "start", "speech")},
            "shapes": [wave_TK.shape for wave_TK in event.waves],
            "has_vad_mask": bool(masks),
        }
        _send(channel, header, *(sound.tobytes() for sound in sounds), *masks)
    else:
        fields = event.ending._asdict()
        _send(channel, {"kind": "finished", "ending": fields, "rest": event[1:]}, fields.pop("envelope"))


def _send(channel: Any, header: dict[str, Any], *payloads: bytes) -> None:
    channel.send_bytes(json.dumps({**header, "num_payloads": len(payloads)}).encode())
    for payload in payloads:
        channel.send_bytes(payload)
