"""The sandbox of foreign bytes: decoders in a process of their own (the default) or in this one; its limits of memory and CPU time are set in `decode_worker`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.segmenter import SegmentSpec
from audiomill.audio.recording import Ending, StageClock
from audiomill.config.defaults import WALL_FACTOR
from audiomill.config.stages import DecodeConfig
from audiomill.errors import RecordingRejected, WorkerDiedError
from audiomill.models.device import usable_cores
from audiomill.sources.parquet import Row
from audiomill.sources.shards import ShardReader
from audiomill.stages.child_processes import Idle, command_of
from audiomill.stages.read import Finished, read_recording
from audiomill.storage.urls import protocol

ATTEMPTS_AFTER_KILL = 4
"""SIGKILL comes from outside (an operator, the kernel short of memory), so it is worth more tries."""
ATTEMPTS_AFTER_CRASH = 2


class _Process(subprocess.Popen[bytes]):
    """A decode process, which takes new settings at any time. See `child_processes.Child`."""

    def __init__(self, origin: tuple[object, ...], environment: dict[str, str], verbose: bool) -> None:
        self.origin = origin
        super().__init__(
            command_of("audiomill.stages.decode_worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else subprocess.DEVNULL,
            env=environment,
        )

    def is_alive(self) -> bool:
        return self.poll() is None

    def end(self, patience_s: float = 0.0) -> int:
        """Kills it, unless it ends by itself: `patience_s` for one that has closed its pipe. Its exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(patience_s)
        self.kill()
        status = self.wait()
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return status


DYING_S = 5.0
"""For a process that has closed its pipe to end by itself, so that its own exit status is known."""
idle: Idle[_Process] = Idle()


def _taken(verbose: bool) -> _Process:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    origin = (verbose, *sys.path, *sorted(environment.items()))
    return idle.take(origin) or _Process(origin, environment, verbose)


class Decoder:
    """Reads recordings in a child process that is replaced when it dies.

    Args:
        decode: channels and limits.
        segments: cutting rules.
        storage_options: fsspec options.
        verbose: let the libraries in the child speak on stderr.
    """

    def __init__(
        self, decode: DecodeConfig, segments: SegmentSpec, storage_options: dict[str, Any], verbose: bool = False
    ) -> None:
        self._decode, self._segments, self._options, self._verbose = decode, segments, storage_options, verbose
        self._process: _Process | None = None
        self._reader = ShardReader(storage_options, decode.audio_column)

    def read(self, row: dict[str, Any]) -> Iterator[Segment | Finished]:
        """Events of one plan row, see `audiomill.stages.read.read_recording`.

        Raises:
            RecordingRejected: the recording cannot be used, or brings its process down every time.
        """
        if protocol(row["source"]) == "memory":  # lives in this process alone
            yield from read_recording(row, self._reader, self._decode, self._segments, StageClock())
            return
        num_given = num_deaths = 0
        while True:
            try:
                for number, event in enumerate(self._ask(row)):
                    if number >= num_given:
                        num_given += 1
                        yield event
                return
            except WorkerDiedError as death:
                num_deaths += 1
                allowed = ATTEMPTS_AFTER_KILL if death.returncode == -signal.SIGKILL else ATTEMPTS_AFTER_CRASH
                if num_deaths >= allowed:
                    raise self._verdict(death, num_deaths) from death

    def durations(self, rows: Sequence[dict[str, Any]]) -> list[float | None]:
        """Seconds by the header of each recording; None where it does not tell, or brings the process down.

        Args:
            rows: with source, kind, position and size, as in `schema.PLAN`.
        """
        return self._asked_of_each("durations", rows, None)

    def tracks(self, rows: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
        """Audio tracks of each recording, and the number of the default one; (0, 0) where that cannot be told."""
        return [(count, default) for count, default in self._asked_of_each("tracks", rows, (0, 0))]

    def rows(self, groups: Sequence[dict[str, Any]]) -> list[list[Row] | None]:
        """What the rows of each row group of Parquet shards say beside their audio; None where that cannot be told."""
        result = self._asked_of_each("rows", groups, None)
        return [None if rows is None else [Row(*row) for row in rows] for rows in result]

    def _asked_of_each(self, what: str, rows: Sequence[dict[str, Any]], otherwise: Any) -> list[Any]:
        try:
            return list(self._exchange({"ask": what, "rows": list(rows)})[what])
        except WorkerDiedError:
            if len(rows) == 1:
                return [otherwise]
            half = len(rows) // 2
            return self._asked_of_each(what, rows[:half], otherwise) + self._asked_of_each(what, rows[half:], otherwise)

    def close(self) -> None:
        """The child process is kept for the next one who needs such a one."""
        result, self._process = self._process, None
        if result is None:
            return
        if result.is_alive() and len(idle) < usable_cores():
            idle.leave(result)
        else:
            result.end()

    def _end(self, patience_s: float = 0.0) -> int:
        """Its exit status."""
        assert self._process is not None
        result, self._process = self._process, None
        return result.end(patience_s)

    def _verdict(self, death: WorkerDiedError, num_deaths: int) -> RecordingRejected:
        limits = {-signal.SIGPROF: "{:g} s of computing", -signal.SIGALRM: f"{WALL_FACTOR} times {{:g}} s"}
        if death.returncode in limits:
            limit = limits[death.returncode].format(self._decode.decode_timeout)
            return RecordingRejected(
                "decode", "time_limit", f"expected progress within {limit}, got none in {num_deaths} tries"
            )
        name = signal.Signals(-death.returncode).name if death.returncode < 0 else f"exit status {death.returncode}"
        return RecordingRejected(
            "decode", "decoder_crashed", f"expected decoded audio, got a dead decoder ({name}) in {num_deaths} tries"
        )

    def _exchange(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line out, one line back."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer
        except (ValueError, BrokenPipeError) as error:
            raise WorkerDiedError(self._end(DYING_S)) from error

    def _ask(self, row: dict[str, Any]) -> Iterator[Segment | Finished]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        is_answered = False
        try:
            process.stdin.write(json.dumps({"ask": "read", "row": row}).encode() + b"\n")
            process.stdin.flush()
            while not is_answered:
                header = json.loads(process.stdout.readline())
                payload = process.stdout.read(header.get("num_bytes", 0))
                if len(payload) < header.get("num_bytes", 0):
                    raise EOFError
                if header["kind"] == "segment":
                    yield _segment(row, header, payload)
                    continue
                is_answered = True
                if header["kind"] == "rejected":
                    raise RecordingRejected(header["stage"], header["reason"], header["detail"])
                yield Finished(Ending(**header["ending"], envelope=payload), *header["rest"])
        except (ValueError, EOFError, BrokenPipeError) as error:
            raise WorkerDiedError(self._end(DYING_S)) from error
        finally:
            # Whoever asked stopped listening: the rest of the answer must not meet the next question.
            if not is_answered and self._process is not None:
                self._end()

    def _running(self) -> _Process:
        if self._process is not None and not self._process.is_alive():
            self._end()
        if self._process is None:
            self._process = _taken(self._verbose)
            assert self._process.stdin is not None
            settings = {
                "decode": dataclasses.asdict(self._decode),
                "segments": dataclasses.asdict(self._segments),
                "storage_options": self._options,
            }
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps({"ask": "settings", **settings}).encode() + b"\n")
        return self._process


def _segment(row: Mapping[str, Any], header: dict[str, Any], payload: bytes) -> Segment:
    """A segment with its sound: 16 kHz first, then each form, then where there is speech."""
    vad_mask = None
    if header["num_voiced"] is not None:
        num_sound = len(payload) - header["num_voiced"]
        payload, vad_mask = payload[:num_sound], payload[num_sound:]
    shapes = [tuple(shape) for shape in header["shapes"]]
    sizes = [rows * channels for rows, channels in shapes]
    num_samples = (len(payload) - 4 * sum(sizes)) // 2
    pcm_T = np.frombuffer(payload, np.int16, num_samples)
    edges = [2 * num_samples + 4 * sum(sizes[:number]) for number in range(len(sizes))]
    waves = tuple(
        np.frombuffer(payload, np.float32, size, at).reshape(shape)
        for size, at, shape in zip(sizes, edges, shapes, strict=True)
    )
    fields = header["fields"]
    return Segment(
        pcm_T,
        fields["left"],
        fields["right"],
        (row["id"], fields["channel"]),
        fields["start"],
        row["language"],
        fields["speech"],
        waves,
        vad_mask,
    )


def waveform_of(
    decoder: Decoder, planned: Mapping[str, Any], start_s: float | None, seconds: float, channel: int | None
) -> NDArray[np.int16]:
    """pcm_T at 16 kHz of `seconds` from `start_s` on.

    Args:
        decoder: with rules that keep everything, see `audio.cutting.segment.whole_spec`.
        planned: a row of `schema.PLAN`.
        start_s: in the source; None: from its start.
        seconds: fewer where the recording ends.
        channel: of the source; None: as the decoder mixes.

    Raises:
        RecordingRejected: the recording cannot be used, or has no audio there.
    """
    row = {**planned, "span_start_s": start_s, "span_duration_s": seconds, "sidecars": None}
    wanted = planned["channel"] if channel is None else channel
    segments = [event for event in decoder.read(row) if isinstance(event, Segment)]
    mine = [segment.pcm_T for segment in segments if segment.channel == wanted]
    if not mine:
        raise RecordingRejected("read", "no_samples", "the recording has no audio there any more")
    return np.concatenate(mine)
