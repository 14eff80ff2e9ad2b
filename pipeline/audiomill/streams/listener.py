"""Many streams on one model: chunks in, words out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.stream_chunks import in_steps
from audiomill.config.fields import build
from audiomill.config.jobs import TranscribeConfig
from audiomill.config.run import OutputConfig
from audiomill.config.stages import ChunksConfig, ListenConfig, ModelConfig, PlanConfig
from audiomill.config.text import TranscriptConfig
from audiomill.errors import UsageError
from audiomill.models.device import resolve_device
from audiomill.models.family import POSTERIORS
from audiomill.models.load import load_model
from audiomill.models.precision import cpu_features
from audiomill.models.seq2seq.autoregressive import FallbackPolicy
from audiomill.models.seq2seq.decoding_fallback import check_texts
from audiomill.runs.resolve_checkpoints import resolve_tasks
from audiomill.runs.resolve_config import resolve_run
from audiomill.streams.chunked_ctc import ChunkedCtc
from audiomill.streams.local_agreement import MOST_CHUNK_S, LocalAgreement
from audiomill.streams.stream_words import StreamingPolicy, StreamLook, StreamWord


class Stream:
    """One stream: give it audio, take its words. Its words depend on its own chunks alone, not on other streams."""

    def __init__(self, listener: Listener, ear: StreamingPolicy, chunk: int) -> None:
        self._listener, self.ear, self._chunk = listener, ear, chunk
        self._pcm: list[NDArray[np.int16]] = []
        self._num_pcm = 0
        self._received = 0
        self._pending: tuple[tuple[str, int, int], ...] = ()
        self.is_finished = self.has_ended = False

    @property
    def received_s(self) -> float:
        """Audio that has come."""
        return self._received / MODEL_SAMPLE_RATE

    def insert(self, pcm_T: NDArray[np.int16]) -> list[StreamWord]:
        """More audio (int16, 16 kHz, one channel), as much as there is; words that became known."""
        return self._listener.insert([(self, pcm_T)])[0]

    def finish(self) -> list[StreamWord]:
        """No more audio comes: the last words."""
        return self._listener.finish([self])[0]

    def take(self, pcm_T: NDArray[np.int16]) -> None:
        """More audio, in its order."""
        self._pcm.append(pcm_T)
        self._num_pcm += len(pcm_T)
        self._received += len(pcm_T)

    def next_chunk(self, is_last: bool) -> NDArray[np.int16] | None:
        """The next whole chunk; the rest where no more comes."""
        if self._num_pcm < self._chunk and not (is_last and self._num_pcm):
            return None
        pcm_T = np.concatenate(self._pcm)
        chunk_T, rest_T = pcm_T[: self._chunk], pcm_T[self._chunk :]
        self._pcm, self._num_pcm = [rest_T], len(rest_T)
        return chunk_T

    @property
    def is_empty(self) -> bool:
        """Whether all that came was looked at."""
        return not self._num_pcm

    def words_to_emit(self, look: StreamLook, computed_s: float) -> list[StreamWord]:
        """Words to tell: those that are final, and those that may change, where they have changed."""
        emitted_s = self.received_s + computed_s
        words = [_word(each, True, emitted_s) for each in look.final]
        if look.partial != self._pending:
            words += [_word(each, False, emitted_s) for each in look.partial]
            self._pending = look.partial
        return words


class Listener:
    """A model that hears streams.

    Args:
        model: CTC models (each chunk is heard with audio around it) and Whisper (what two looks agree on is final): hub id, local
            folder, URL.
        language: code, for multilingual Whisper.
        chunks: what the model sees at a time.
        settings: device and number format of the model.
        storage_options: fsspec options, for a model at a URL.

    Raises:
        audiomill.errors.UsageError: the model writes no text, or tells no times of words.

    Example:
        >>> stream = Listener("facebook/wav2vec2-base-960h").stream()
        >>> for chunk in chunks:
        ...     for word in stream.insert(chunk):
        ...         print(word.text, word.is_final)
        >>> stream.finish()
    """

    def __init__(
        self,
        model: str,
        language: str | None = None,
        chunks: ChunksConfig | None = None,
        settings: ModelConfig | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        chunks, options = chunks or ChunksConfig(), storage_options or {}
        asked = dataclasses.replace(settings or ModelConfig(), model=model)
        job = TranscribeConfig(
            inputs=("-",),
            plan=PlanConfig(storage_options=options),
            model=asked,
            transcripts=TranscriptConfig(language=language),
            output=OutputConfig(output="-"),
        ).job()
        (result,) = resolve_tasks(job)
        self.has_frames = result.checkpoint.offers(POSTERIORS)
        if not self.has_frames and not result.checkpoint.family.times_words:
            raise UsageError(
                f"--model {model}: a {result.checkpoint.family.name} model tells no times of words; streams need a CTC model or a Whisper"
            )
        if not self.has_frames and chunks.chunk_seconds > MOST_CHUNK_S:
            raise UsageError(
                f"--chunk-seconds {chunks.chunk_seconds:g}: {model} sees 30 s at a time, what is not final and the chunk; expected {MOST_CHUNK_S:g} at most"
            )
        spec, _ = resolve_run(job, [result], resolve_device(asked.device), cpu_features())
        (self._task,) = spec.tasks
        self._model: Any = load_model(self._task, options)
        self._language = language
        step = self._task.text_hop or int(self._task.hop)
        self._chunk = (
            in_steps(chunks.chunk_seconds, step) if self.has_frames else samples_from_seconds(chunks.chunk_seconds)
        )
        self._left, self._right = (
            in_steps(chunks.left_context_seconds, step),
            samples_from_seconds(chunks.look_ahead_seconds),
        )
        self._num_streams = 0

    @property
    def segment(self) -> str:
        """How a job would cut what is heard as a whole."""
        return "none" if self.has_frames else "vad"

    @property
    def chunk_s(self) -> float:
        """Of a chunk: CTC models have whole frames."""
        return self._chunk / MODEL_SAMPLE_RATE

    def stream(self) -> Stream:
        """A new stream."""
        self._num_streams += 1
        name = f"stream {self._num_streams}"
        ear: StreamingPolicy
        if self.has_frames:
            ear = ChunkedCtc(name, self._left, self._right, self._model.transcripts)
        else:
            ear = LocalAgreement(name, self._language, self._model.transcripts)
        return Stream(self, ear, self._chunk)

    def insert(self, audio: Sequence[tuple[Stream, NDArray[np.int16]]]) -> list[list[StreamWord]]:
        """More audio of several streams, heard together; the words of each."""
        for stream, pcm_T in audio:
            if stream.is_finished:
                raise UsageError("a stream that was finished takes no more audio; open another one")
            if pcm_T.dtype != np.int16 or pcm_T.ndim != 1:
                raise UsageError(
                    f"a stream takes int16 at 16 kHz, one channel (T,), got {pcm_T.dtype} {pcm_T.shape}; of floats: (pcm * 32767).astype('int16')"
                )
            stream.take(pcm_T)
        return self._process_chunks([stream for stream, _ in audio], is_last=False)

    def finish(self, streams: Sequence[Stream]) -> list[list[StreamWord]]:
        """No more audio of these streams comes; the last words of each."""
        result = self._process_chunks([stream for stream in streams if not stream.is_finished], is_last=True)
        by_stream = iter(result)
        words: list[list[StreamWord]] = []
        for stream in streams:
            if stream.is_finished:
                words.append([])
                continue
            stream.is_finished = True
            words.append([*next(by_stream), *stream.words_to_emit(stream.ear.finish(), 0.0)])
        return words

    def _process_chunks(self, streams: Sequence[Stream], is_last: bool) -> list[list[StreamWord]]:
        began = time.perf_counter()
        words: list[list[StreamWord]] = [[] for _ in streams]
        while due := self._due(streams, is_last):
            for number, look in self._read_predictions(streams, due):
                words[number] += streams[number].words_to_emit(look, time.perf_counter() - began)
        return words

    def _due(self, streams: Sequence[Stream], is_last: bool) -> list[tuple[int, Segment]]:
        """At most one look of each stream."""
        results = []
        for number, stream in enumerate(streams):
            look = stream.ear.rest()
            while look is None and (chunk_T := stream.next_chunk(is_last)) is not None:
                look = stream.ear.due(chunk_T, is_last and stream.is_empty)
            if look is None and is_last and not stream.has_ended:  # what waits for audio behind it waits no longer
                stream.has_ended = True
                look = stream.ear.due(np.zeros(0, np.int16), True)
            if look is not None:
                results.append((number, look))
        return results

    def _read_predictions(
        self, streams: Sequence[Stream], due: Sequence[tuple[int, Segment]]
    ) -> Iterable[tuple[int, StreamLook]]:
        looks = [look for _, look in due]
        texts = [answer.text for answer in self._model.forward(looks)]
        if isinstance(self._model.fallback, FallbackPolicy):  # what is made of silence is no text
            texts = check_texts(looks, texts, self._model.fallback)
        for (number, look), text in zip(due, texts, strict=True):
            yield number, streams[number].ear.accept(look, text)


def listener_by_name(model: str, language: str | None, options: dict[str, Any]) -> Listener:
    """See `audiomill.streaming_recognizer`."""
    config: Any = build(ListenConfig, {"inputs": ("-",), "model": model, "language": language, **options})
    return Listener(model, language, config.chunks, config.model, config.source.storage_options)


def _word(word: tuple[str, int, int], is_final: bool, emitted_s: float) -> StreamWord:
    text, start, stop = word
    return StreamWord(text, start / MODEL_SAMPLE_RATE, stop / MODEL_SAMPLE_RATE, is_final, round(emitted_s, 3))
