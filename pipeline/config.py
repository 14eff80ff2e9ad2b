"""One frozen keyword-only dataclass per stage and per job; the only home of defaults.

Command line, YAML and library read the same fields: `jobs/options.py` makes a flag of every field below
(`part_seconds` -> `--part-seconds`). A field marked `results=True` changes what comes out; those make the
digest that guards an output folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.errors import UsageError

T = TypeVar("T")


def option(default: Any, help_text: str, *, choices: tuple[str, ...] = (), results: bool = False) -> Any:
    """A dataclass field that is also a command-line option.

    Args:
        default: its value when nothing is said.
        help_text: what the option does, for `--help`.
        choices: allowed values, if few.
        results: True when another value gives other output rows.
    """
    metadata = {"help": help_text, "choices": choices, "results": results}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class _Validated:
    """Checks choices on construction; subclasses add their own rules in `check`."""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            choices, value = each.metadata.get("choices"), getattr(self, each.name)
            if choices and value not in choices:
                raise UsageError(f"--{flag(each.name)} {value}: expected one of {', '.join(choices)}")
        self.check()

    def check(self) -> None:
        """Rules beyond choices; raises UsageError."""

    def require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"--{flag(name)} {value}: expected a number above 0")


def flag(name: str) -> str:
    """`part_seconds` -> `part-seconds`."""
    return name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class PlanConfig(_Validated):
    """How inputs become parts."""

    part_seconds: float = option(1800.0, "Audio seconds a part: what one restart can lose, one output file per table.")
    audio_root: str | None = option(
        None, "Folder or URL that manifest paths are relative to and confined to [default: the manifest's own folder]."
    )
    storage_options: dict[str, Any] = option(
        {},
        'fsspec options as JSON, e.g. \'{"endpoint_url": "http://..."}\' (credentials are better kept in the environment).',
    )

    def check(self) -> None:
        self.require_positive("part_seconds")


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(_Validated):
    """How bytes become 16 kHz mono, and when to give up."""

    channels: str = option(
        "mix",
        "mix: average all channels; first: channel 0; split: every channel on its own.",
        choices=("mix", "split", "first"),
        results=True,
    )
    min_recording_seconds: float = option(0.1, "Shorter recordings are rejected as too_short.", results=True)
    max_recording_hours: float = option(100.0, "Longer recordings are rejected as too_long.", results=True)
    decode_timeout: float = option(
        60.0, "Seconds without progress after which a decoder is killed and its recording rejected."
    )
    decode_memory_gb: float = option(
        4.0, "Address space of a decode process, in GB (Linux); beyond it the recording is rejected."
    )

    def check(self) -> None:
        self.require_positive("min_recording_seconds", "max_recording_hours", "decode_timeout", "decode_memory_gb")


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(_Validated):
    """How a recording is cut into what the model sees."""

    segment: str = option(
        "vad",
        "vad: speech found by silero-vad, cut at silences; fixed: windows; none: a recording is one segment if the model's window holds it.",
        choices=("vad", "fixed", "none"),
        results=True,
    )
    max_segment_seconds: float = option(30.0, "Longest segment; Whisper's window is 30.", results=True)
    vad_threshold: float = option(0.5, "Speech probability at which speech starts; it ends 0.15 below.", results=True)
    min_speech_seconds: float = option(0.1, "Shorter bursts are not speech.", results=True)
    min_silence_seconds: float = option(0.3, "Shorter pauses do not end speech.", results=True)
    speech_pad_seconds: float = option(0.2, "Kept before and after speech.", results=True)
    max_gap_seconds: float = option(2.0, "Speech separated by less is put in one segment while it fits.", results=True)
    context_seconds: float = option(
        4.0, "CTC models, fixed windows: extra audio on both sides whose frames are dropped.", results=True
    )

    def check(self) -> None:
        self.require_positive("max_segment_seconds")
        if not 0 < self.vad_threshold < 1:
            raise UsageError(f"--vad-threshold {self.vad_threshold}: expected a probability between 0 and 1")
        if self.max_segment_seconds <= 2 * self.context_seconds + 1:
            raise UsageError(
                f"--context-seconds {self.context_seconds}: twice that must leave at least 1 s of --max-segment-seconds {self.max_segment_seconds}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Validated):
    """Which model reads the segments, and how."""

    model: str = option(
        "openai/whisper-large-v3-turbo",
        "Whisper or wav2vec2-family CTC checkpoint: hub id, local folder, fsspec URL, or CTranslate2 Whisper folder.",
    )
    language: str | None = option(
        None, "Language code such as en [default: detected per segment; .en models: en].", results=True
    )
    task: str = option(
        "transcribe",
        "transcribe, or translate to English (multilingual Whisper).",
        choices=("transcribe", "translate"),
        results=True,
    )
    timestamps: bool = option(
        True, "Whisper: decode with timestamp tokens, which give phrases and their times.", results=True
    )
    max_new_tokens: int = option(224, "Whisper: longest text of a segment, in tokens.", results=True)
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    precision: str = option("auto", "auto: fp32 on CPU, fp16 on GPU.", choices=("auto", "fp32", "bf16", "fp16"))
    batch_seconds: float | None = option(None, "Padded audio seconds a batch [default: 480 on CPU, 1920 on GPU].")
    trust_remote_code: bool = option(
        False, "Let a checkpoint bring its own Python code. Leave off unless you have read it."
    )

    def check(self) -> None:
        self.require_positive("batch_seconds", "max_new_tokens")
        if not (self.device in ("auto", "cpu", "cuda") or self.device.startswith("cuda:")):
            raise UsageError(f"--device {self.device}: expected auto, cpu, cuda or cuda:N")


@dataclass(frozen=True, kw_only=True)
class EngineConfig(_Validated):
    """Where the stages run."""

    engine: str = option(
        "ray",
        "ray: Ray Data, one machine or a cluster; local: this process and its decode workers.",
        choices=("ray", "local"),
    )
    ray_address: str | None = option(
        None, "Address of a running cluster, or auto [default: a session of its own on this machine]."
    )
    ship_code: bool = option(
        False, "Send this program's code along to the cluster instead of using what its image holds."
    )
    actors: int = option(1, "Model workers.")
    gpus_per_actor: float | None = option(
        None, "GPUs a model worker takes, fractions allowed [default: 1 on GPU, 0 on CPU]."
    )
    cpus_per_actor: float = option(1.0, "CPUs a model worker takes from Ray's count.")
    decode_workers: int | None = option(None, "Decode processes of the local engine [default: cores - 1, at least 1].")
    no_progress_timeout: float = option(
        3600.0, "Ray: seconds without any block moving after which the run fails (GPU nodes may take long to come)."
    )

    def check(self) -> None:
        self.require_positive("actors", "gpus_per_actor", "decode_workers", "no_progress_timeout")


@dataclass(frozen=True, kw_only=True)
class OutputConfig(_Validated):
    """Where results go and what a rerun does."""

    output: str = option("", "Folder or URL for the tables.")
    overwrite: bool = option(False, "Delete what the output holds and start anew.")
    retry_rejected: bool = option(False, "Run only the rejected recordings again.")
    strict: bool = option(False, "Exit with 3 when anything was rejected.")
    quiet: bool = option(False, "No progress, only the final summary.")
    verbose: bool = option(False, "Show what Ray, transformers and FFmpeg say.")

    def check(self) -> None:
        if not self.output:
            raise UsageError("--output is missing: name the folder or URL for the tables, e.g. --output out/")
        if self.overwrite and self.retry_rejected:
            raise UsageError("--overwrite and --retry-rejected exclude each other: drop one of them")


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    """The transcribe job."""

    inputs: tuple[str, ...]
    plan: PlanConfig = PlanConfig()
    decode: DecodeConfig = DecodeConfig()
    segment: SegmentConfig = SegmentConfig()
    model: ModelConfig = ModelConfig()
    engine: EngineConfig = EngineConfig()
    output: OutputConfig


def result_fields(config: Any) -> dict[str, Any]:
    """Fields that change what comes out, by flag name, of a job config and its parts."""
    found: dict[str, Any] = {}
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            found.update(result_fields(value))
        elif each.metadata.get("results"):
            found[flag(each.name)] = value
    return found


def digest(fields: dict[str, Any]) -> str:
    """Short hash of a JSON-able mapping; equal mappings give equal digests."""
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build(kind: type[T], values: dict[str, Any]) -> T:
    """An instance of a config dataclass, nested ones included, from flat field names.

    Args:
        kind: a config dataclass.
        values: field name -> value; names that `kind` lacks are ignored, absent ones take their default.
    """
    chosen: dict[str, Any] = {}
    for each in dataclasses.fields(kind):  # type: ignore[arg-type]
        nested = _nested_kind(kind, each.name)
        if nested is not None:
            chosen[each.name] = build(nested, values)
        elif each.name in values:
            chosen[each.name] = values[each.name]
    return kind(**chosen)


def flat_fields(kind: type) -> list[dataclasses.Field[Any]]:
    """Every option field of a job config, in order, nested dataclasses opened."""
    found: list[dataclasses.Field[Any]] = []
    for each in dataclasses.fields(kind):
        nested = _nested_kind(kind, each.name)
        if nested is not None:
            found.extend(flat_fields(nested))
        elif each.metadata:
            found.append(each)
    return found


def _nested_kind(kind: type, name: str) -> type | None:
    import typing

    hint = typing.get_type_hints(kind)[name]
    return hint if dataclasses.is_dataclass(hint) and isinstance(hint, type) else None
