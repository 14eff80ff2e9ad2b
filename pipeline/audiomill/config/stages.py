"""One frozen keyword-only dataclass per stage and per job; the only home of defaults.

Command line, YAML and library read the same fields: `jobs/options.py` makes a flag of every field below
(`part_seconds` -> `--part-seconds`). A field marked `results=True` changes what comes out; those make the
digest that guards an output folder.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar

from audiomill.config.defaults import (
    FRAMES_BATCH_S,
    INT8,
    INT8_BF16,
    INT8_WEIGHT7,
    LEAST_PART_S,
    MOST_PART_S,
    SPEECH_SEGMENT_S,
    WINDOW_S,
    WINDOWS_BATCH_S,
)
from audiomill.config.fields import Validated, option
from audiomill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class QualityConfig(Validated):
    """How segments sound."""

    COMMON = ("quality", "tagger")

    quality: bool = option(
        False,
        "Table `quality`: noise, clipping, bandwidth, loudness, silence and DNSMOS of every segment (audiomill[quality]). Shown, never "
        "filtered on: `select --where` and `export --where` do that.",
        results=True,
    )
    dnsmos: bool = option(True, "With --quality: DNSMOS too, which costs most of it.", results=True)
    tagger: str | None = option(
        None, "With --quality: model that tags sound (AST), such as MIT/ast-finetuned-audioset-10-10-0.4593."
    )
    num_tags: int = option(5, "With --tagger: most probable tags of a segment.", results=True)

    def check(self) -> None:
        self.require_positive("num_tags")


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Validated):
    """How inputs become parts."""

    COMMON = ("storage_options",)

    part_seconds: float | None = option(
        None,
        "Audio seconds a part: what one restart can lose, one output file per table; less where frame embeddings would make a part larger than 512 MB.",
        otherwise=f"a twentieth of the corpus, {LEAST_PART_S['cpu']:g} (on GPU {LEAST_PART_S['cuda']:g}) to {MOST_PART_S:g}; kept for the output",
    )
    audio_root: str | None = option(
        None,
        "Folder or URL that manifest paths are relative to and confined to.",
        otherwise="the manifest's own folder",
    )
    storage_options: dict[str, Any] = option(
        {},
        'fsspec options as JSON, e.g. \'{"endpoint_url": "http://..."}\' (credentials are better kept in the environment).',
    )

    def check(self) -> None:
        self.require_positive("part_seconds")


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(Validated):
    """How bytes become 16 kHz mono, and when to give up."""

    COMMON = ("channels",)

    channels: str = option(
        "mix",
        "mix: average all channels; first: channel 0; split: every channel on its own.",
        choices=("mix", "split", "first"),
        results=True,
    )
    track: str = option(
        "default",
        "Audio track of containers with several: default (the one marked so), first, all (a recording of each), a number from 1, or "
        "a language as the file names it, such as eng.",
        results=True,
    )
    audio_column: str | None = option(
        None, "Column of Parquet shards that holds the audio.", otherwise="found by name and type", results=True
    )
    min_recording_seconds: float = option(
        0.025, "Shorter recordings are rejected as too_short: 25 ms is one frame of the models.", results=True
    )
    max_recording_hours: float = option(100.0, "Longer recordings are rejected as too_long.", results=True)
    decode_timeout: float = option(
        60.0,
        "Seconds that a decoder may compute without progress (and ten times as many that it may wait) before it is killed "
        "and its recording rejected: a busy machine rejects nothing.",
    )
    decode_memory_gb: float = option(
        4.0, "Address space of a decode process, in GB (Linux); beyond it the recording is rejected."
    )

    def check(self) -> None:
        self.require_positive("min_recording_seconds", "max_recording_hours", "decode_timeout", "decode_memory_gb")


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(Validated):
    """How a recording is cut into what the model sees."""

    COMMON = ("segment",)

    segment: str = option(
        "auto",
        "vad: speech by voice activity (--vad), cut at silences; fixed: windows; none: a recording is one segment if the model's window "
        "holds it, else windows; stream: what a stream would hear (models with frames, --chunk-seconds and its like, see `listen`); auto: "
        "vad where text is wanted, else none.",
        choices=("auto", "vad", "fixed", "none", "stream"),
        results=True,
    )
    max_segment_seconds: float | None = option(
        None,
        "Longest segment, 30 at most for Whisper.",
        otherwise=f"{SPEECH_SEGMENT_S:g} where Whisper writes what voice activity found, else {WINDOW_S:g}",
        results=True,
    )
    vad: str = option(
        "silero",
        "Detector of voice activity. silero: silero-vad; webrtc: that of WebRTC, faster and less sure (pip install 'audiomill[webrtc]').",
        choices=("silero", "webrtc"),
        results=True,
    )
    vad_threshold: float = option(0.3, "Speech probability at which speech starts; it ends 0.15 below.", results=True)
    min_speech_seconds: float = option(0.1, "Shorter bursts are not speech.", results=True)
    min_silence_seconds: float = option(0.3, "Shorter pauses do not end speech.", results=True)
    speech_pad_seconds: float = option(0.2, "Kept before and after speech.", results=True)
    max_gap_seconds: float = option(2.0, "Speech separated by less is put in one segment while it fits.", results=True)
    chunk_overlap_seconds: float = option(
        4.0, "Windows of models with frames: extra audio on both sides whose frames are dropped.", results=True
    )

    def check(self) -> None:
        self.require_positive("max_segment_seconds")
        if self.vad == "webrtc" and importlib.util.find_spec("webrtcvad") is None:
            raise UsageError("--vad webrtc: its package is missing; pip install 'audiomill[webrtc]'")
        if not 0 < self.vad_threshold < 1:
            raise UsageError(f"--vad-threshold {self.vad_threshold}: expected a probability between 0 and 1")
        longest = self.max_segment_seconds or WINDOW_S
        if longest <= 2 * self.chunk_overlap_seconds + 1:
            raise UsageError(
                f"--chunk-overlap-seconds {self.chunk_overlap_seconds}: twice that must leave at least 1 s of --max-segment-seconds {longest:g}"
            )


@dataclass(frozen=True, kw_only=True)
class ChunksConfig(Validated):
    """What a model sees at a time, in `listen` and with `--segment stream`."""

    chunk_seconds: float = option(
        1.0, "Streams: audio that is heard at a time: shorter is sooner, and less sure.", results=True
    )
    left_context_seconds: float = option(
        8.0, "Streams of models with frames: audio before a chunk that is shown again.", results=True
    )
    look_ahead_seconds: float = option(
        0.5, "Streams of models with frames: audio behind a chunk that is waited for.", results=True
    )

    def check(self) -> None:
        self.require_positive("chunk_seconds", "left_context_seconds")
        if self.look_ahead_seconds < 0:
            raise UsageError(f"--look-ahead-seconds {self.look_ahead_seconds:g}: expected 0 or more")
        if self.chunk_seconds + self.left_context_seconds + self.look_ahead_seconds > WINDOW_S:
            raise UsageError(
                f"--chunk-seconds, --left-context-seconds and --look-ahead-seconds: expected {WINDOW_S:g} s together at most, "
                f"got {self.chunk_seconds + self.left_context_seconds + self.look_ahead_seconds:g}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Validated):
    """Which model reads the segments, and on what."""

    COMMON = ("model", "device", "precision")

    model: str = option(
        "openai/whisper-large-v3-turbo",
        "Whisper, wav2vec2, HuBERT, WavLM, data2vec-audio or wav2vec2-BERT checkpoint: hub id, local folder, fsspec URL, CTranslate2 "
        "Whisper folder, or a fairseq .pt file of wav2vec (v1) or vq-wav2vec.",
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    precision: str = option(
        "auto",
        "auto: fp16 on GPU; on CPU fp32, and int8 for the text of Whisper where the processor has AVX2 or VNNI. int8: on CPU.",
        choices=("auto", "fp32", "bf16", "fp16", "int8"),
        settled=(INT8, INT8_BF16, INT8_WEIGHT7),
    )
    batch_seconds: float | None = option(
        None,
        "Padded audio seconds a batch.",
        otherwise=f"Whisper: {WINDOWS_BATCH_S['cpu']:g}; models with frames: {FRAMES_BATCH_S['cpu']:g} on CPU, {FRAMES_BATCH_S['cuda']:g} on GPU",
    )
    memory_fraction: float = option(
        0.8,
        "Share of the device's free memory that Whisper's decoder plans for: it decodes as many segments at a time as fit.",
    )
    trust_remote_code: bool = option(
        False, "Let a checkpoint bring its own Python code. Leave off unless you have read it."
    )

    def check(self) -> None:
        self.require_positive("batch_seconds")
        if not 0 < self.memory_fraction <= 1:
            raise UsageError(f"--memory-fraction {self.memory_fraction}: expected a share above 0, at most 1")
        if not (self.device in ("auto", "cpu", "cuda") or self.device.startswith("cuda:")):
            raise UsageError(f"--device {self.device}: expected auto, cpu, cuda or cuda:N")


@dataclass(frozen=True, kw_only=True)
class SourceConfig(Validated):
    """Where audio comes from, and how fast."""

    raw_rate: int | None = option(
        None,
        "The input is PCM without a header, at this rate [Hz].",
        otherwise="16000 on standard input; files say it themselves",
    )
    raw_channels: int = option(1, "Channels of PCM without a header; they are mixed.")
    raw_format: str = option(
        "s16le", "Samples of PCM without a header.", choices=("s16le", "s32le", "f32le", "mulaw", "alaw")
    )
    simulate: str = option(
        "off",
        "Tell how late words came, and how they differ from those of the whole recording. realtime: play a file as it was "
        "spoken; fast: without waiting, computing counted as if it had been.",
        choices=("off", "realtime", "fast"),
    )
    language: str | None = option(
        None, "Language code, for multilingual Whisper.", otherwise="it finds out, look by look"
    )
    storage_options: dict[str, Any] = option({}, "fsspec options as JSON, for URLs.")
    verbose: bool = option(False, "Show what the libraries say.")

    def check(self) -> None:
        self.require_positive("raw_rate", "raw_channels")


@dataclass(frozen=True, kw_only=True)
class ListenConfig:
    """`audiomill listen`: words while the audio comes."""

    LEFT_OUT = frozenset(("batch_seconds",))

    inputs: tuple[str, ...]
    model: ModelConfig = ModelConfig()
    chunks: ChunksConfig = ChunksConfig()
    source: SourceConfig = SourceConfig()


@dataclass(frozen=True, kw_only=True)
class OutputPlace(Validated):
    """Where a job's results go. `EXAMPLE`: what is missing where nobody says it, and how it would be said."""

    EXAMPLE: ClassVar[str] = "name a folder for the results, e.g. --output results/"

    output: str = option("", "Folder or URL.")
    overwrite: bool = option(False, "Delete what the output holds and start anew.")
    quiet: bool = option(False, "No progress, only the final summary.")

    def check(self) -> None:
        if not self.output:
            raise UsageError(f"--output is missing: {self.EXAMPLE}")
