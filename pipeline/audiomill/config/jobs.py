"""The jobs' configurations: which stage dataclasses a job has, and the models with what is wanted of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from audiomill.config.representations import CodesConfig, EmbeddingsConfig, KmeansConfig, PicturesConfig
from audiomill.config.run import EngineConfig, OutputConfig, WatchConfig
from audiomill.config.speakers import SpeakersConfig
from audiomill.config.stages import ChunksConfig, DecodeConfig, ModelConfig, PlanConfig, QualityConfig, SegmentConfig
from audiomill.config.text import TranscriptConfig


@dataclass(frozen=True, kw_only=True)
class ModelTask:
    """One model and what is wanted of it, all from one forward pass.

    `tables`: options by table, see `audiomill.tables.outputs`; `aligns`: a CTC model finds when the words were said that another model of the job wrote;
    None: where it has nothing to write itself; `speaker_model`: it tells who speaks, with this model of voices;
    `num_tags`: it tags sound.
    """

    model: ModelConfig
    transcripts: TranscriptConfig | None = None
    tables: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    aligns: bool | None = None
    speaker_model: str | None = None
    num_tags: int = 0

    @property
    def has_text(self) -> bool:
        return self.transcripts is not None

    @property
    def text(self) -> TranscriptConfig:
        """Options of texts; where none is wanted those that ask for nothing more."""
        return self.transcripts or TranscriptConfig()


LISTENING = tuple(each.name for kind in (SpeakersConfig, QualityConfig) for each in fields(kind))
"""Options of what is heard beside text, vectors and codes."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What every job has."""

    inputs: tuple[str, ...]
    plan: PlanConfig = PlanConfig()
    decode: DecodeConfig = DecodeConfig()
    segment: SegmentConfig = SegmentConfig()
    chunks: ChunksConfig = ChunksConfig()
    speakers: SpeakersConfig = SpeakersConfig()
    quality: QualityConfig = QualityConfig()
    engine: EngineConfig = EngineConfig()
    output: OutputConfig
    watch: WatchConfig = WatchConfig()


@dataclass(frozen=True, kw_only=True)
class JobConfig(Stages):
    """What the run is given: `tasks` share one read and decode, and segment ids."""

    name: str
    tasks: tuple[ModelTask, ...]


@dataclass(frozen=True, kw_only=True)
class RunConfig(Stages):
    """`audiomill run`: the models come from the YAML file."""

    def job(self, tasks: Sequence[ModelTask]) -> JobConfig:
        return job_of(self, "run", tuple(tasks))


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig(Stages):
    """`audiomill transcribe`: audio to text."""

    model: ModelConfig = ModelConfig()
    transcripts: TranscriptConfig = TranscriptConfig()

    def job(self) -> JobConfig:
        return job_of(self, "transcribe", (ModelTask(model=self.model, transcripts=self.transcripts),))


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Stages):
    """`audiomill embed`: audio to vectors."""

    model: ModelConfig = ModelConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()

    def job(self) -> JobConfig:
        return job_of(self, "embed", (ModelTask(model=self.model, tables={"embeddings": (self.embeddings,)}),))


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(Stages):
    """`audiomill encode`: audio to discrete units."""

    model: ModelConfig = ModelConfig()
    codes: CodesConfig = CodesConfig()

    def job(self) -> JobConfig:
        return job_of(self, "encode", (ModelTask(model=self.model, tables={"codes": (self.codes,)}),))


@dataclass(frozen=True, kw_only=True)
class KmeansJobConfig(Stages):
    """`audiomill kmeans`: audio to a codebook."""

    LEFT_OUT = frozenset((
        *LISTENING, "verify_segments", "log_format", "max_output_bytes", "metrics", "report", "report_clips", "retry_rejected", "array_task",
        "strict", "traces",
    ))  # fmt: skip

    model: ModelConfig = ModelConfig()
    kmeans: KmeansConfig = KmeansConfig()

    def job(self) -> JobConfig:
        frames = EmbeddingsConfig(layers=str(self.kmeans.layer), dtype="fp32")
        return job_of(self, "kmeans", (ModelTask(model=self.model, tables={"embeddings": (frames,)}),))


@dataclass(frozen=True, kw_only=True)
class TraceConfig(Stages):
    """`audiomill trace`: one recording through a model, whole and once, on the CPU."""

    LEFT_OUT = frozenset((
        *LISTENING, "part_seconds", "segment", "max_segment_seconds", "vad", "vad_threshold", "min_speech_seconds",
        "min_silence_seconds", "speech_pad_seconds", "max_gap_seconds", "chunk_overlap_seconds", "chunk_seconds",
        "left_context_seconds", "look_ahead_seconds", "device", "batch_seconds",
        "engine", "ray_address", "ship_code", "actors", "gpus_per_actor", "cpus_per_actor", "decode_workers",
        "verify_segments", "array_task", "model_timeout", "no_progress_timeout", "overwrite", "retry_rejected", "max_output_bytes", "strict",
        "quiet", "metrics", "log_format", "traces", "report", "report_clips", "second_pass_model", "min_avg_logprob",
        "max_compression_ratio", "max_no_speech_prob", "low_confidence", "second_pass_threshold", "calibration", "consistency_samples", "save_posteriors", "num_best",
    ))  # fmt: skip

    model: ModelConfig = ModelConfig()
    transcripts: TranscriptConfig = TranscriptConfig()
    pictures: PicturesConfig = PicturesConfig()

    def job(self, task: ModelTask) -> JobConfig:
        return job_of(self, "trace", (task,))


BY_NAME = {"transcribe": TranscribeConfig, "embed": EmbedConfig, "encode": EncodeConfig}
"""Jobs that one call can run, see `audiomill.run`."""


def job_of(config: Stages, name: str, tasks: tuple[ModelTask, ...]) -> JobConfig:
    stages = {field: getattr(config, field) for field in Stages.__dataclass_fields__}
    return JobConfig(name=name, tasks=tasks, **stages)
