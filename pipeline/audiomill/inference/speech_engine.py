"""A model in memory: any number of recordings in, lazily and in order, their answers out; batched exactly inside.

The steps are those of a job, see `audiomill.inference.memory_run`; only the output folder is missing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import pyarrow as pa
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from audiomill.config.fields import build, flat_fields, typed
from audiomill.config.jobs import BY_NAME, TranscribeConfig
from audiomill.config.stages import ModelConfig
from audiomill.errors import RecordingRejected, UsageError
from audiomill.inference.answers import (
    Answer,
    Embedding,
    Encoding,
    Rejection,
    Transcription,
    tables_of,
    to_embedding,
    to_encoding,
    to_rejection,
    to_transcription,
)
from audiomill.inference.audio_inputs import MemoryInput, memory_input
from audiomill.inference.memory_run import planned_seconds_of, run_group, run_isolated_group
from audiomill.models.checkpoint import find_checkpoint
from audiomill.models.device import resolve_device
from audiomill.models.load import load_tasks
from audiomill.models.precision import cpu_features
from audiomill.models.task import LoadedTask
from audiomill.runs.resolve_checkpoints import resolve_tasks
from audiomill.runs.resolve_config import resolve_run
from audiomill.stages.spec import RunSpec

GROUP_SECONDS, GROUP_RECORDINGS = 1_200.0, 256
"""Recordings that are batched together: more make batches hardly fuller, and answers come later."""
_Answer = TypeVar("_Answer", bound=Answer)
_ToAnswer = Callable[[Mapping[str, Any], Mapping[str, pa.Table]], _Answer]


@dataclass(frozen=True)
class _Prepared:
    """A job of this model, settled; `tasks`: the loaded models, None where processes of their own hold them."""

    spec: RunSpec
    tasks: list[LoadedTask] | None


class SpeechEngine:
    """See `audiomill.load`. Calls from several threads take turns; an engine is used in the process that opened it.

    Args:
        model: hub id, local folder or URL.
        options: of every call.
        isolate: foreign bytes are decoded, and models run, in processes of their own, as in a job.

    Raises:
        UsageError: there is no such model.
    """

    def __init__(self, model: str, options: Mapping[str, Any], isolate: bool = False) -> None:
        self._model, self._isolate = model, isolate
        of_jobs = {name: {field.name for field in flat_fields(kind)} for name, kind in BY_NAME.items()}
        self._of_job = {job: {k: v for k, v in options.items() if k in names} for job, names in of_jobs.items()}
        unknown = options.keys() - set().union(*of_jobs.values())
        values = typed(TranscribeConfig, {**self._of_job["transcribe"], **{name: options[name] for name in unknown}})
        find_checkpoint(build(ModelConfig, {**values, "model": model}), values.get("storage_options", {}))
        self._prepared: dict[str, _Prepared] = {}
        self._turn, self._pid, self._is_closed = threading.RLock(), os.getpid(), False

    def __repr__(self) -> str:
        return f"SpeechEngine({self._model!r}{', closed' if self._is_closed else ''})"

    def __enter__(self) -> SpeechEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the models; may be called twice."""
        self._prepared.clear()
        self._is_closed = True

    @overload
    def transcribe(
        self, audio: list[Any] | Iterator[Any], *, rate: int | None = None, progress: bool = False, **options: Any
    ) -> Iterator[Transcription | Rejection]: ...
    @overload
    def transcribe(
        self, audio: Any, *, rate: int | None = None, progress: bool = False, **options: Any
    ) -> Transcription: ...
    def transcribe(self, audio: Any, *, rate: int | None = None, progress: bool = False, **options: Any) -> Any:
        """Text with times, as `audiomill transcribe` writes it.

        Args:
            audio: one recording, or a list or iterator of them: paths, URLs, bytes of files, open files, arrays of NumPy or
                torch ((T), (T, C) or (C, T); floats from -1 to 1 or integers), pairs (array, rate), Hugging Face `Audio` values.
            rate: of arrays that come without one, in samples a second.
            progress: shows a bar on stderr.
            options: of the job `transcribe`: `language="en"`, `word_times=False`.

        Returns:
            A `Transcription`; of a list or an iterator, an iterator over one for each input, in order, `Rejection` for those
            that cannot be used.

        Raises:
            UsageError: an option or the model cannot be used.
            RecordingRejected: the only recording cannot be used.
        """
        return self._answers("transcribe", audio, rate, progress, options, to_transcription)

    @overload
    def embed(
        self, audio: list[Any] | Iterator[Any], *, rate: int | None = None, progress: bool = False, **options: Any
    ) -> Iterator[Embedding | Rejection]: ...
    @overload
    def embed(self, audio: Any, *, rate: int | None = None, progress: bool = False, **options: Any) -> Embedding: ...
    def embed(self, audio: Any, *, rate: int | None = None, progress: bool = False, **options: Any) -> Any:
        """Hidden states, as `audiomill embed` writes them: `layers="6,9"`, `pool="mean"`. See `transcribe`."""
        return self._answers("embed", audio, rate, progress, options, to_embedding)

    @overload
    def encode(
        self, audio: list[Any] | Iterator[Any], *, rate: int | None = None, progress: bool = False, **options: Any
    ) -> Iterator[Encoding | Rejection]: ...
    @overload
    def encode(self, audio: Any, *, rate: int | None = None, progress: bool = False, **options: Any) -> Encoding: ...
    def encode(self, audio: Any, *, rate: int | None = None, progress: bool = False, **options: Any) -> Any:
        """Discrete codes, as `audiomill encode` writes them: `codebook="codebook/"`. See `transcribe`."""
        return self._answers("encode", audio, rate, progress, options, to_encoding)

    def table_schema(self, job: str, table: str) -> pa.Schema:
        """Of a table that a job's answers hold."""
        result: pa.Schema = self._prepare(job, {}).spec.tables.schemas[table]
        return result

    def _answers(
        self,
        job: str,
        audio: Any,
        rate: int | None,
        progress: bool,
        options: Mapping[str, Any],
        to_answer: _ToAnswer[_Answer],
    ) -> Any:
        prepared = self._prepare(job, options)
        if _is_several(audio):
            inputs = (memory_input(each, number, rate) for number, each in enumerate(audio))
            return _shown(self._in_groups(prepared, inputs, to_answer), progress)
        (answer,) = self._in_groups(prepared, iter([memory_input(audio, 0, rate)]), to_answer)
        if isinstance(answer, Rejection):
            raise RecordingRejected(answer.stage, answer.reason, f"{answer.source}: {answer.detail}")
        return answer

    def _prepare(self, job: str, options: Mapping[str, Any]) -> _Prepared:
        """The models of a job with these options, loaded once."""
        self._check_usable()
        kind = BY_NAME[job]
        values = typed(kind, {**self._of_job[job], **options, "model": self._model})
        key = repr((job, sorted(values.items())))
        with self._turn:
            if key not in self._prepared:
                config: Any = build(kind, {**values, "inputs": ("-",), "output": "-"})
                tasks = resolve_tasks(config.job())
                spec, _ = resolve_run(config.job(), tasks, resolve_device(values.get("device", "auto")), cpu_features())
                loaded = None if self._isolate else load_tasks(spec.tasks, spec.storage_options)
                self._prepared[key] = _Prepared(spec, loaded)
            return self._prepared[key]

    def _check_usable(self) -> None:
        if self._is_closed:
            raise UsageError(f"{self._model}: this engine is closed; open another one: audiomill.load({self._model!r})")
        if self._pid != os.getpid():
            raise UsageError(
                f"{self._model}: this engine was opened in another process; call audiomill.load in this one (after a fork models hang)"
            )

    def _in_groups(
        self, prepared: _Prepared, inputs: Iterator[MemoryInput], to_answer: _ToAnswer[_Answer]
    ) -> Iterator[_Answer | Rejection]:
        """Answers in the order of the inputs; what came before an exception of the iterator is answered first."""
        for group, error in _grouped(inputs):
            self._check_usable()
            with self._turn:
                answers = list(_group_answers(prepared, group, to_answer))
            yield from answers
            if error is not None:
                raise error


def _is_several(audio: Any) -> bool:
    """Lists and iterators hold recordings; a list of numbers is one."""
    if isinstance(audio, list):
        return not audio or not isinstance(audio[0], (int, float)) or isinstance(audio[0], bool)
    is_one = (
        isinstance(audio, (str, bytes, bytearray, os.PathLike, Mapping, tuple))
        or hasattr(audio, "shape")
        or hasattr(audio, "read")
    )
    return not is_one and isinstance(audio, Iterable) and not hasattr(audio, "get_all_samples")


def _grouped(inputs: Iterator[MemoryInput]) -> Iterator[tuple[list[MemoryInput], Exception | None]]:
    """Inputs that are batched together, no recording twice among them, and the exception that ended the iterator."""
    group, names, seconds, error = list[MemoryInput](), set[str](), 0.0, None
    while True:
        try:
            each = next(inputs)
        except StopIteration:
            break
        except Exception as raised:
            error = raised
            break
        if group and (seconds >= GROUP_SECONDS or len(group) == GROUP_RECORDINGS or each.entry.id in names):
            yield group, None
            group, names, seconds = [], set(), 0.0
        group.append(each)
        names.add(each.entry.id)
        seconds += planned_seconds_of(each)
    if group or error is not None:
        yield group, error


def _group_answers(
    prepared: _Prepared, group: Sequence[MemoryInput], to_answer: _ToAnswer[_Answer]
) -> Iterator[_Answer | Rejection]:
    if not group:
        return
    if prepared.tasks is None:
        tables = run_isolated_group(prepared.spec, group)
    else:
        tables = run_group(prepared.spec, prepared.tasks, group)
    recordings = {row["id"]: row for row in tables["recordings"].to_pylist()}
    rejections = {row["id"]: row for row in tables["rejections"].to_pylist()}
    for each in group:
        name = each.entry.id
        if name in recordings:
            yield to_answer(recordings[name], tables_of(name, tables))
        else:
            yield to_rejection(rejections[name])


def _shown(answers: Iterator[Any], progress: bool) -> Iterator[Any]:
    """The answers, with a bar that counts them where that is wanted."""
    if not progress:
        yield from answers
        return
    columns = (
        TextColumn("{task.completed:.0f} recordings, {task.fields[minutes]:.1f} min"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as bar:
        task, seconds = bar.add_task("", total=None, minutes=0.0), 0.0
        for answer in answers:
            seconds += getattr(answer, "duration_s", 0.0)
            bar.update(task, advance=1, minutes=seconds / 60)
            yield answer
