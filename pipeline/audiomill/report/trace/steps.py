"""A recording -> what a model makes of it at each step: arrays with their rates, and words about them.

T samples, F frames, D width, M mels, V vocabulary, K codebooks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.segmenter import whole_spec
from audiomill.config.jobs import JobConfig, ModelTask, TraceConfig
from audiomill.config.representations import CodesConfig, EmbeddingsConfig
from audiomill.errors import InputError, RecordingRejected, UsageError
from audiomill.models.base import CONV, Prediction, Transcript, VectorRequest, Vectors
from audiomill.models.causal.activation_trace import ActivationTrace
from audiomill.models.checkpoint import find_checkpoint, shape_of
from audiomill.models.family import POSTERIORS, TEXT, VECTORS
from audiomill.models.load import load_model
from audiomill.models.precision import cpu_features
from audiomill.models.task import TaskSpec
from audiomill.runs.resolve_checkpoints import ResolvedTask, resolve_tasks
from audiomill.runs.resolve_config import resolve_run
from audiomill.stages.plan import listed
from audiomill.stages.sandbox import Decoder, waveform_of


class Word(NamedTuple):
    """A word or phrase between two times in seconds."""

    text: str
    start_s: float
    stop_s: float


class Step(NamedTuple):
    """One stage of the way. `array`: time runs along its last axis; `rate_hz`: columns a second; `rows`: names of
    the rows, where they have any; `cells`: texts of each column; `kind` chooses the picture: wave, heat, codes, posteriors or
    choices, whose columns are tokens, not moments (`rate_hz` 0)."""

    name: str
    kind: str
    array: NDArray[Any]
    rate_hz: float
    meaning: str
    rows: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()
    cells: tuple[tuple[str, ...], ...] = ()


class Trace(NamedTuple):
    """`waveform_T`: what was read, at 16 kHz; `is_cut`: more followed."""

    source: str
    model: str
    waveform_T: NDArray[np.int16]
    is_cut: bool
    text: str | None
    steps: tuple[Step, ...]


def trace_recording(config: TraceConfig) -> Trace:
    """Follows the start of one recording through one model.

    Raises:
        UsageError: the model or an option cannot be used.
        InputError: the file cannot be read as audio.
    """
    job = config.job(_task_for(config))
    max_seconds = config.pictures.max_seconds
    (result,) = resolve_tasks(job)
    spec, _ = resolve_run(job, [result], "cpu", cpu_features())
    (task,) = spec.tasks
    pcm, is_cut = _read(job.inputs[0], job, max_seconds)
    segment = Segment(pcm, 0, 0, ("trace", None), 0, None)
    has_conv = result.checkpoint.family.shows_convolutions(Path(result.checkpoint.path))
    if has_conv:
        requested = dataclasses.replace(task.requested, vectors=(VectorRequest(layer=CONV), *task.requested.vectors))
        task = dataclasses.replace(task, requested=requested)
    model: Any = load_model(task, job.plan.storage_options)
    (answer,) = model.forward([segment])
    transcript = model.transcripts([segment], [answer.text])[0] if answer.text is not None else None
    steps = [Step("waveform", "wave", pcm.astype(np.float32) / 32768, MODEL_SAMPLE_RATE, _wave_words(result))]
    steps.append(_mel_step(pcm, result))
    steps += _vector_steps(answer, task, result)
    steps += _code_steps(answer, task)
    if result.checkpoint.offers(POSTERIORS) and transcript is not None:
        steps.append(_posterior_step(model, segment, transcript, len(pcm)))
    if result.checkpoint.family.shows_activations:
        steps += _activation_steps(model.activations(segment, answer.text))
    text = transcript.text if transcript is not None else None
    return Trace(job.inputs[0], task.label, pcm, is_cut, text, tuple(steps))


def _task_for(config: TraceConfig) -> ModelTask:
    """Everything that this checkpoint can give."""
    checkpoint = find_checkpoint(config.model, config.plan.storage_options)
    shape, pictures = shape_of(checkpoint), config.pictures
    layers, codebook = pictures.layers, pictures.codebook
    if layers == "auto":
        layers = ",".join(str(n) for n in sorted({min(1, shape.num_layers), shape.num_layers // 2, shape.num_layers}))
        layers = "all" if shape.layer_names else layers
    has_vectors = checkpoint.offers(VECTORS)
    if not has_vectors and pictures.layers != "auto":
        raise UsageError(f"--layers: {config.model.model} gives no hidden states; leave it out")
    if codebook == "auto":
        codebook = "quantizer" if shape.quantizer is not None else ""
    return ModelTask(
        model=dataclasses.replace(config.model, device="cpu"),
        transcripts=config.transcripts if checkpoint.offers(TEXT) else None,
        tables={
            "embeddings": (EmbeddingsConfig(layers=layers, dtype="fp32"),) if has_vectors else (),
            "codes": (CodesConfig(codebook=codebook, codebook_layer=pictures.codebook_layer),) if codebook else (),
        },
    )


def _read(url: str, job: JobConfig, max_seconds: float) -> tuple[NDArray[np.int16], bool]:
    """The first seconds as 16 kHz mono."""
    listing = listed((url,), job.plan, job.decode, "")
    (row, *others) = [{**entry._asdict(), "id": entry.id} for entry in listing.entries]
    if others:
        raise InputError(f"{url}: holds {1 + len(others)} recordings; name one audio file")
    channels = "mix" if job.decode.channels == "split" else job.decode.channels
    decode = dataclasses.replace(job.decode, channels=channels)
    decoder = Decoder(decode, whole_spec(max_seconds + 2), listing.options(job.plan.storage_options))
    try:
        channel = 0 if channels == "first" else None
        pcm = waveform_of(decoder, row, row["span_start_s"], max_seconds + 1, channel)
    except RecordingRejected as rejected:
        raise InputError(f"{url}: {rejected.reason}: {rejected.detail}") from rejected
    finally:
        decoder.close()
    limit = samples_from_seconds(max_seconds)
    return pcm[:limit], len(pcm) > limit


def _wave_words(found_task: ResolvedTask) -> str:
    form, step = found_task.shape.form, float(found_task.shape.step)
    form_note = "" if form is None else f" This one hears {form.rate / 1000:g} kHz, {form.num_channels} channel(s)."
    return f"16 kHz, one channel, 16 bits: what most models are given.{form_note} {step:g} samples make one frame of this one."


def _mel_step(pcm: NDArray[np.int16], found_task: ResolvedTask) -> Step:
    from audiomill.models.frames.mel import log_mel_MF

    is_input = found_task.checkpoint.family.reads_log_mel
    what = "What this model sees." if is_input else "For the eye only: this model does not read it."
    return Step(
        "log-mel spectrogram",
        "heat",
        log_mel_MF(pcm),
        100.0,
        f"Energy in 80 bands from low (below) to high, every 10 ms. {what}",
    )


def _vector_steps(answer: Prediction, task: TaskSpec, found_task: ResolvedTask) -> Iterator[Step]:
    for want, vectors in zip(task.requested.vectors, answer.readout.vectors, strict=True):
        rate = task.frame_rate(want.layer)
        values_DF = _as_float(vectors).T
        if want.layer == CONV:
            meaning = "What the convolutions make of the waveform: local, 25 ms a frame, before any attention."
            yield Step("convolutional features", "heat", values_DF, rate, meaning)
            continue
        names = found_task.shape.layer_names
        name = names[want.layer] if names else f"hidden state {want.layer} of {found_task.shape.num_layers}"
        meaning = (
            "What enters the first layer."
            if want.layer == 0 and not names
            else "Every frame has seen all the others by now."
        )
        if names:
            meaning = {
                "z": "Output of the convolutional encoder.",
                "c": "Output of the aggregator: sees the past only.",
            }[name]
        yield Step(name, "heat", values_DF, rate, meaning)


def _as_float(vectors: Vectors) -> NDArray[np.float32]:
    values = vectors.values_ND.astype(np.float32)
    return values if vectors.scale_N is None else values * vectors.scale_N[:, None]


def _code_steps(answer: Prediction, task: TaskSpec) -> Iterator[Step]:
    for want, codes_KF in zip(task.requested.codes, answer.readout.codes, strict=True):
        meaning = (
            f"{want.num_codebooks} codebook{'s' if want.num_codebooks > 1 else ''} of {want.num_entries} entries: "
            "one number a frame and codebook; the same colour is the same number."
        )
        rows = tuple(f"codebook {number}" for number in range(want.num_codebooks))
        yield Step(f"codes of {want.name}", "codes", codes_KF, task.frame_rate(want.layer), meaning, rows)


def _activation_steps(activations: ActivationTrace) -> Iterator[Step]:
    for stage in activations.stages:
        yield Step(stage.name, "heat", stage.array_DF, stage.rate_hz, stage.meaning)
    probabilities_KN, texts = activations.choices
    rows = tuple(f"choice {number}" for number in range(1, len(probabilities_KN) + 1))
    meaning = "What the language model would have written at each step, the likeliest above: dark is sure. The upper row is the text."
    yield Step("first choices", "choices", probabilities_KN, 0.0, meaning, rows, cells=texts)


def _posterior_step(model: Any, segment: Segment, transcript: Transcript, num_samples: int) -> Step:
    posteriors_FV, tokens = model.posteriors(segment)
    spoken = np.flatnonzero(posteriors_FV.max(0) > 0.1)
    rows = tuple({"|": "space", "": f"#{i}"}.get(tokens[i], tokens[i]) for i in spoken.tolist())
    words = tuple(
        Word(word.text, word.start / MODEL_SAMPLE_RATE, min(word.stop, num_samples) / MODEL_SAMPLE_RATE)
        for word in transcript.words or ()
    )
    rate = MODEL_SAMPLE_RATE / model.text_hop
    meaning = "How probable each letter is at each moment (letters above 10% anywhere). The best one of every frame, repeats and blanks removed, is the text."
    return Step("CTC posteriors", "posteriors", posteriors_FV[:, spoken].T, rate, meaning, rows, words)
