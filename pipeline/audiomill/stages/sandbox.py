"""The sandbox of foreign bytes: decoders in a process of their own (the default) or in this one; its limits of memory and CPU time are set in `decode_worker`."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
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
from audiomill.stages.child_processes import Child, Idle
from audiomill.stages.read import Finished, read_recording
from audiomill.storage.urls import protocol

ATTEMPTS_AFTER_KILL = 4
"""SIGKILL comes from outside (an operator, the kernel short of memory), so it is worth more tries."""
ATTEMPTS_AFTER_CRASH = 2


idle: Idle[Child] = Idle()


def _taken(verbose: bool) -> Child:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    origin = (verbose, *sys.path, *sorted(environment.items()))
    return idle.take(origin) or Child("audiomill.stages.decode_worker", origin, environment, verbose)


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
        self._process: Child | None = None
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
        """One message out, one back."""
        process = self._running()
        process.send(json.dumps(question).encode())
        return _answer(process)

    def _ask(self, row: dict[str, Any]) -> Iterator[Segment | Finished]:
        process, is_answered = self._running(), False
        try:
            process.send(json.dumps({"ask": "read", "row": row}).encode())
            while not is_answered:
                header = _answer(process)
                payloads = [process.receive() for _ in range(header.get("num_payloads", 0))]
                if header["kind"] == "segment":
                    yield _segment(row, header, payloads)
                    continue
                is_answered = True
                if header["kind"] == "rejected":
                    raise RecordingRejected(header["stage"], header["reason"], header["detail"])
                yield Finished(Ending(**header["ending"], envelope=payloads[0]), *header["rest"])
        finally:
            # Whoever asked stopped listening: the rest of the answer must not meet the next question.
            if not is_answered:
                process.end()

    def _running(self) -> Child:
        if self._process is None or not self._process.is_alive():
            self._process = _taken(self._verbose)
            settings = {
                "decode": dataclasses.asdict(self._decode),
                "segments": dataclasses.asdict(self._segments),
                "storage_options": self._options,
            }
            self._process.send(json.dumps({"ask": "settings", **settings}).encode())
        return self._process


def _answer(process: Child) -> dict[str, Any]:
    """Raises WorkerDiedError: the process is gone, or out of its mind."""
    try:
        answer: dict[str, Any] = json.loads(process.receive())
    except ValueError as error:
        raise WorkerDiedError(process.end()) from error
    return answer


def _segment(row: Mapping[str, Any], header: dict[str, Any], payloads: Sequence[bytes]) -> Segment:
    """A segment with its sound: 16 kHz first, then each form, then where there is speech."""
    pcm_T = np.frombuffer(payloads[0], np.int16)
    waves = tuple(
        np.frombuffer(payload, np.float32).reshape(shape)
        for payload, shape in zip(payloads[1:], header["shapes"], strict=False)
    )
    vad_mask = payloads[-1] if header["has_vad_mask"] else None
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
