"""audiomill: the batch pipeline that turns audio corpora into transcripts, embeddings and codes in Parquet.

    import audiomill

    audiomill.run("embed", "recordings/", output="vectors/", model="facebook/hubert-base-ls960", layers="9")
    for name, values in audiomill.open_output("vectors/"):
        ...
    audiomill.load("openai/whisper-tiny.en").transcribe("call.wav").text

`help(audiomill.run)`, `help(audiomill.open_output)` and `help(audiomill.streaming_recognizer)` say the rest; the command line is `audiomill --help`.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["Rejection", "load", "open_output", "run", "streaming_recognizer"]

if TYPE_CHECKING:
    from audiomill.inference.answers import Rejection
    from audiomill.inference.speech_engine import SpeechEngine
    from audiomill.streams.listener import Listener
    from audiomill.tables.reader import OutputDataset


def run(
    job: str,
    *inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    output: str | PathLike[str],
    quiet: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Runs a job, as `audiomill JOB INPUT... --output OUTPUT` does; the same call again does only what is left.

    Args:
        job: transcribe, embed or encode.
        inputs: paths or URLs (or lists of them) of files, folders, globs, tar or Parquet shards, manifests.
        output: folder or URL for the tables.
        quiet: no progress on stderr.
        options: those of the job, by the names of its flags with `_` for `-`: `model="openai/whisper-tiny.en"`,
            `word_times=False`, `storage_options={...}`.

    Returns:
        Counts, seconds of audio, rejections by reason and times of the run.

    Raises:
        audiomill.errors.UsageError: an input, a model, an option or the output cannot be used.
        audiomill.errors.RunFailed: parts could not be finished; the same call goes on.
    """
    from audiomill.runs.job import run_by_name  # only here: it loads what models need

    return run_by_name(job, inputs, {**options, "output": output, "quiet": quiet})


def load(
    model: str | PathLike[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    isolate: bool = False,
    **options: Any,
) -> SpeechEngine:
    """A model in memory, for sound in memory: `transcribe`, `embed` and `encode` answer what the jobs of these names write.

    Args:
        model: hub id, local folder or URL.
        device: auto, cpu or cuda.
        precision: auto, fp32, bf16, fp16 or int8.
        isolate: decodes foreign bytes, and runs the model, in processes of their own, as jobs do; a crash then costs one
            recording, and a CPU computes on all cores.
        options: of every call, by the names of the jobs' flags: `language="en"`, `channels="split"`, `storage_options={...}`.

    Raises:
        audiomill.errors.UsageError: there is no such model. Its weights are loaded by the first call, for what that wants.

    Example:
        >>> engine = audiomill.load("openai/whisper-tiny.en")
        >>> engine.transcribe("call.wav").text
        >>> for answer in engine.transcribe([array_T, "https://example.org/a.mp3"], rate=16000):
        ...     print(answer.source, answer.to_dict())
    """
    from audiomill.inference.speech_engine import SpeechEngine  # only here: it loads what models need

    return SpeechEngine(str(model), {**options, "device": device, "precision": precision}, isolate)


def streaming_recognizer(model: str, *, language: str | None = None, **options: Any) -> Listener:
    """A streaming recognizer: words while the audio comes, see `audiomill listen`.

    Args:
        model: a CTC model or a Whisper: hub id, local folder, URL.
        language: code, for multilingual Whisper.
        options: `chunk_seconds`, `left_context_seconds`, `look_ahead_seconds`, `device`, `precision`.

    Raises:
        audiomill.errors.UsageError: the model writes no text or has no word times, or an option is unknown.

    Example:
        >>> stream = audiomill.streaming_recognizer("openai/whisper-tiny.en").stream()
        >>> words = stream.insert(pcm_T)  # int16, 16 kHz
        >>> words += stream.finish()
    """
    from audiomill.streams.listener import listener_by_name  # only here: it loads what models need

    return listener_by_name(model, language, options)


def open_output(
    url: str,
    table: str | None = None,
    *,
    columns: Sequence[str] = (),
    dtype: str | None = None,
    storage_options: dict[str, Any] | None = None,
    **only: Any,
) -> OutputDataset:
    """Opens the embeddings or codes of an output as a torch `Dataset` of (segment id, array) pairs.

    Arrays are values_FD for frames (F frames, D width), values_D where pooled, codes_F of one codebook, or codes_KF
    where a quantizer has several. The dataset also takes slices, iterates in file order, and gives `.stream()` for many
    DataLoader workers and `.collate` to pad samples of different lengths into a batch with a mask.

    Args:
        url: the `--output` of an embed, encode or run job, local or remote.
        table: embeddings or codes; may be left out where there is only one of them.
        columns: of the segments and recordings tables that each sample carries as a third element, a dict:
            `columns=["source", "language", "duration_s"]`.
        dtype: of float arrays: float16 (as most are stored) or float32 (what `nn.Linear` takes); None: as stored, and
            float32 for int8 with its scale.
        storage_options: for fsspec.
        only: rows to take, by `model`, `layer` and `pool`, or by `model`, `quantizer` and `codebook`. Must be given
            where an output holds several.

    Raises:
        audiomill.errors.InputError: no finished rows, several kinds of rows and no choice, or a choice that is not there.

    Example:
        >>> frames = audiomill.open_output("vectors/", layer=9, dtype="float32")
        >>> batches = torch.utils.data.DataLoader(frames.stream(0), batch_size=16, collate_fn=frames.collate)
    """
    from audiomill.tables.reader import opened  # only here: torch takes seconds to import

    return opened(url, table, columns=columns, dtype=dtype, storage_options=storage_options, only=only)


def __getattr__(name: str) -> Any:
    """`Rejection`, which is imported when it is asked for; `listener`: the name that `streaming_recognizer` had in version 0.1."""
    if name == "Rejection":
        from audiomill.inference.answers import Rejection

        return Rejection
    if name == "listener":
        return streaming_recognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
