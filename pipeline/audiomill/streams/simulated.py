"""How late words come, and how they differ from those of the whole recording."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.console import Console

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.jobs import TranscribeConfig
from audiomill.config.run import EngineConfig, OutputConfig
from audiomill.config.stages import ModelConfig, PlanConfig, SegmentConfig
from audiomill.config.text import TranscriptConfig
from audiomill.runs.job import run_job
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.streams.listener import Stream
from audiomill.streams.stream_words import StreamWord
from audiomill.text.wer import score_pair

_Told = Callable[[Sequence[StreamWord]], None]


@dataclass
class Played:
    """What became of a stream. `revisions`: words that were told and then changed; `computed_s`: in the model."""

    words: list[StreamWord] = field(default_factory=list)
    revisions: int = 0
    seconds: float = 0.0
    computed_s: float = 0.0
    delays_s: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    def lines(self) -> list[str]:
        """For people."""
        speed = self.seconds / max(self.computed_s, 1e-9)
        results = [
            f"{self.seconds:.1f} s of audio, {len(self.words)} words, computed {speed:.1f}x as fast as it was spoken"
        ]
        if self.words:
            counted, alone = (np.percentile(each, [50, 95]) for each in (self.delays_s, self.waits_s))
            results.append(
                f"end of a word to its final text: p50 {counted[0]:.2f} s, p95 {counted[1]:.2f} s; without computing "
                f"{alone[0]:.2f} s and {alone[1]:.2f} s; {self.revisions / len(self.words):.2f} revisions a word"
            )
        return results


def played(
    stream: Stream, audio: Iterable[NDArray[np.int16]], chunk_s: float, in_real_time: bool, on_words: _Told
) -> Played:
    """Plays audio to a stream chunk by chunk.

    Args:
        stream: new.
        audio: pcm_T, piece by piece.
        chunk_s: what is inserted at a time.
        in_real_time: waits until each chunk would have been spoken. Without it, a chunk's words count as told when it had been
            spoken, everything before it had been computed, and it had been computed itself.
        on_words: takes words as they come.
    """
    result, free_at, began = Played(), 0.0, time.monotonic()
    pending: list[StreamWord] = []

    def count(words: Sequence[StreamWord], came_s: float, computed_s: float) -> None:
        nonlocal free_at, pending
        free_at = time.monotonic() - began if in_real_time else max(came_s, free_at) + computed_s
        result.computed_s += computed_s
        words = [word._replace(emitted_s=round(free_at, 3)) for word in words]
        final = [word for word in words if word.is_final]
        result.words += final
        result.delays_s += [free_at - word.stop_s for word in final]
        result.waits_s += [came_s - word.stop_s for word in final]
        if words:
            result.revisions += _revised(pending, words)
            partial = [word for word in words if not word.is_final]
            pending = partial or [word for word in pending if final and word.start_s >= final[-1].stop_s]
        on_words(words)

    for chunk_T in _in_chunks(audio, int(chunk_s * MODEL_SAMPLE_RATE)):
        result.seconds += len(chunk_T) / MODEL_SAMPLE_RATE
        if in_real_time:
            time.sleep(max(0.0, result.seconds - (time.monotonic() - began)))
        before = time.perf_counter()
        words = stream.insert(chunk_T)
        count(words, result.seconds, time.perf_counter() - before)
    before = time.perf_counter()
    count(stream.finish(), result.seconds, time.perf_counter() - before)
    return result


def _revised(before: Sequence[StreamWord], now: Sequence[StreamWord]) -> int:
    """Words that were told and are others now, by their order."""
    return sum(old.text != new.text for old, new in zip(before, now, strict=False))


def _in_chunks(audio: Iterable[NDArray[np.int16]], size: int) -> Iterable[NDArray[np.int16]]:
    waiting = np.zeros(0, np.int16)
    for pcm_T in audio:
        waiting = np.concatenate([waiting, pcm_T])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if len(waiting):
        yield waiting


def text_of_whole(
    pcm_T: NDArray[np.int16],
    model: ModelConfig,
    language: str | None,
    segment: str,
    storage_options: dict[str, Any] | None = None,
) -> str:
    """What `transcribe` writes of the same audio, cut as `segment` says."""
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder) / "whole.wav", pcm_T, MODEL_SAMPLE_RATE)
        job = TranscribeConfig(
            inputs=(str(Path(folder) / "whole.wav"),),
            plan=PlanConfig(storage_options=storage_options or {}),
            model=model,
            segment=SegmentConfig(segment=segment),
            transcripts=TranscriptConfig(language=language),
            engine=EngineConfig(engine="local"),
            output=OutputConfig(output=str(Path(folder) / "out"), quiet=True),
        )
        run_job(job.job(), Console(quiet=True))
        (row,) = ledger.tables(Place(str(Path(folder) / "out"), {}), "recordings").to_pylist()
        return str(row["text"] or "")


def beside_whole(streamed: str, whole: str, language: str | None) -> str:
    """For people: how a stream's words differ from those of the whole recording."""
    errors = score_pair(whole, streamed, language)[0]
    return f"beside the whole recording: {100 * errors.rate:.1f}% of {errors.num_reference} words differ"
