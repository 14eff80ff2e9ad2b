"""A job's configuration -> what its run does: automatic choices made, paths made absolute, versions noted."""

from __future__ import annotations

import dataclasses
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pipeline
from pipeline.audio.clock import samples_from_seconds
from pipeline.audio.segment import SegmentSpec, spec_from_seconds
from pipeline.config import SegmentConfig, TranscribeConfig, digest, result_fields
from pipeline.models.checkpoint import WHISPER_WINDOW_S, Checkpoint, fingerprint, resolve_precision
from pipeline.run.spec import RunSpec
from pipeline.storage.fs import Place, absolute

CPU_BATCH_SECONDS, GPU_BATCH_SECONDS = 480.0, 1920.0
PACKAGES = (
    "torch", "transformers", "ray", "pyarrow", "numpy", "soundfile", "av", "soxr", "silero-vad", "onnxruntime", "fsspec",
)  # fmt: skip


def settle(config: TranscribeConfig, checkpoint: Checkpoint, device: str) -> tuple[RunSpec, dict[str, Any]]:
    """Fills in what was left to us.

    Args:
        config: the job.
        checkpoint: what `--model` named.
        device: cpu or cuda, already resolved.

    Returns:
        The run, and what changes its results by flag name (`ledger.guard` compares it).
    """
    precision = resolve_precision(config.model.precision, device)
    fields = {**result_fields(config), "model": fingerprint(checkpoint), "precision": precision}
    batch_seconds = config.model.batch_seconds or (CPU_BATCH_SECONDS if device == "cpu" else GPU_BATCH_SECONDS)
    spec = RunSpec(
        output=Place(absolute(config.output.output), config.plan.storage_options),
        digest=digest(fields),
        decode=config.decode,
        segments=segment_spec(config.segment, checkpoint.kind),
        model=dataclasses.replace(config.model, model=checkpoint.name, device=device, precision=precision),
        engine=config.engine,
        storage_options=config.plan.storage_options,
        piece_samples=samples_from_seconds(config.plan.part_seconds),
        batch_samples=samples_from_seconds(batch_seconds),
        verbose=config.output.verbose,
    )
    return spec, fields


def segment_spec(config: SegmentConfig, model_kind: str) -> SegmentSpec:
    """Cutting rules for a model: Whisper has a window of 30 s, CTC models take context beside fixed windows."""
    is_ctc = model_kind == "ctc"
    window = config.max_segment_seconds if is_ctc else min(config.max_segment_seconds, WHISPER_WINDOW_S)
    return spec_from_seconds(
        kind=config.segment,
        max_length_s=window,
        context_s=config.context_seconds if is_ctc and config.segment != "vad" else 0.0,
        threshold=config.vad_threshold,
        min_speech_s=config.min_speech_seconds,
        min_silence_s=config.min_silence_seconds,
        pad_s=config.speech_pad_seconds,
        max_gap_s=config.max_gap_seconds,
    )


def run_record(config: TranscribeConfig) -> dict[str, Any]:
    """What run.json holds beside the settings that change results; no credentials."""
    return {
        "job": "transcribe",
        "audiomill": pipeline.__version__,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "model_name": config.model.model,
        "inputs": [without_credentials(url) for url in config.inputs],
    }


def without_credentials(url: str) -> str:
    """`https://user:secret@host/x?token=y` -> `https://host/x`."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rsplit('@', 1)[-1]}{slash}{path.split('?')[0] if scheme.startswith('http') else path}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
