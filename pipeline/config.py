"""One frozen keyword-only dataclass per stage and per job; the only home of defaults.

Command line, YAML and library read the same fields: `jobs/options.py` makes a flag of every field below
(`part_seconds` -> `--part-seconds`). A field marked `results=True` changes what comes out; those make the
digest that guards an output folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.decoder_config import DecoderConfig
from pipeline.errors import UsageError
from pipeline.fields import Validated, option


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Validated):
    """How inputs become parts."""

    part_seconds: float = option(
        1800.0,
        "Audio seconds a part: what one restart can lose, one output file per table; less where frame embeddings would make a part larger than 512 MB.",
    )
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
class DecodeConfig(Validated):
    """How bytes become 16 kHz mono, and when to give up."""

    channels: str = option(
        "mix",
        "mix: average all channels; first: channel 0; split: every channel on its own.",
        choices=("mix", "split", "first"),
        results=True,
    )
    min_recording_seconds: float = option(
        0.025, "Shorter recordings are rejected as too_short: 25 ms is one frame of the models.", results=True
    )
    max_recording_hours: float = option(100.0, "Longer recordings are rejected as too_long.", results=True)
    decode_timeout: float = option(
        60.0, "Seconds without progress after which a decoder is killed and its recording rejected."
    )
    decode_memory_gb: float = option(
        4.0, "Address space of a decode process, in GB (Linux); beyond it the recording is rejected."
    )

    def check(self) -> None:
        self.require_positive("min_recording_seconds", "max_recording_hours", "decode_timeout", "decode_memory_gb")


LONGEST_SEGMENT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(Validated):
    """How a recording is cut into what the model sees."""

    segment: str = option(
        "auto",
        "vad: speech found by silero-vad, cut at silences; fixed: windows; none: a recording is one segment if the model's window "
        "holds it, else windows; auto: vad where text is wanted, else none.",
        choices=("auto", "vad", "fixed", "none"),
        results=True,
    )
    max_segment_seconds: float | None = option(
        None,
        "Longest segment, 30 at most for Whisper [default: 14 where Whisper writes what voice activity found (measured: no "
        "less accurate than 30, and faster); else 30].",
        results=True,
    )
    vad_threshold: float = option(0.5, "Speech probability at which speech starts; it ends 0.15 below.", results=True)
    min_speech_seconds: float = option(0.1, "Shorter bursts are not speech.", results=True)
    min_silence_seconds: float = option(0.3, "Shorter pauses do not end speech.", results=True)
    speech_pad_seconds: float = option(0.2, "Kept before and after speech.", results=True)
    max_gap_seconds: float = option(2.0, "Speech separated by less is put in one segment while it fits.", results=True)
    context_seconds: float = option(
        4.0, "Windows of models with frames: extra audio on both sides whose frames are dropped.", results=True
    )

    def check(self) -> None:
        self.require_positive("max_segment_seconds")
        if not 0 < self.vad_threshold < 1:
            raise UsageError(f"--vad-threshold {self.vad_threshold}: expected a probability between 0 and 1")
        longest = self.max_segment_seconds or LONGEST_SEGMENT_S
        if longest <= 2 * self.context_seconds + 1:
            raise UsageError(
                f"--context-seconds {self.context_seconds}: twice that must leave at least 1 s of --max-segment-seconds {longest:g}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Validated):
    """Which model reads the segments, and on what."""

    model: str = option(
        "openai/whisper-large-v3-turbo",
        "Whisper, wav2vec2, HuBERT, WavLM, data2vec-audio or wav2vec2-BERT checkpoint: hub id, local folder, fsspec URL, CTranslate2 "
        "Whisper folder, or a fairseq .pt file of wav2vec (v1) or vq-wav2vec.",
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    precision: str = option(
        "auto",
        "auto: fp16 on GPU; on CPU fp32, for Whisper's text int8 or bf16 where the CPU is much faster with them. int8: Whisper on CPU.",
        choices=("auto", "fp32", "bf16", "fp16", "int8"),
    )
    batch_seconds: float | None = option(
        None, "Padded audio seconds a batch [default for Whisper: 480 on CPU, 1920 on GPU; else 10 and 480]."
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
class TranscriptConfig(Validated):
    """What text is wanted."""

    language: str | None = option(
        None, "Language code such as en [default: detected per segment; .en models: en].", results=True
    )
    languages: str | None = option(
        None, "Codes by comma, such as en,de: the language of a segment is looked for among these only.", results=True
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
    prompt: str | None = option(
        None, "Whisper: text that it is told came before, for names, spellings and style.", results=True
    )
    suppress_numerals: bool = option(False, "Whisper: write numbers as words.", results=True)
    word_times: bool = option(
        True, "Whisper: when each word was said, from the decoder's attention (CTC models always tell).", results=True
    )
    pack: bool = option(
        False,
        "Whisper: lay short segments that follow each other side by side in one window, and give them their words back by "
        "when they were said. Faster for clips of a few seconds; a segment is then read beside others.",
        results=True,
    )
    max_new_tokens: int = option(224, "Whisper: longest text of a segment, in tokens.", results=True)
    retry: bool = option(
        True,
        "Whisper: check what the decoder knows about each text, and decode again (full window, sampling, beam search) what "
        "does not pass; off: greedy text as it comes.",
        results=True,
    )
    second_model: str | None = option(
        None,
        "Whisper: a larger checkpoint of the same vocabulary that reads what passes no rung of the first; hub id, folder or URL.",
    )
    min_avg_logprob: float = option(
        -1.0, "Whisper: texts below this mean log-probability are decoded again.", results=True
    )
    max_compression_ratio: float = option(2.4, "Whisper: texts that compress better repeat themselves.", results=True)
    max_no_speech_prob: float = option(
        0.6, "Whisper: above this and below --min-avg-logprob a text counts as invented and is dropped.", results=True
    )
    low_confidence: str = option(
        "keep",
        "keep: texts that pass no rung stay, with the gates they failed in `gates`; drop: they are emptied.",
        choices=("keep", "drop"),
        results=True,
    )

    decoder: DecoderConfig = DecoderConfig()

    def check(self) -> None:
        self.require_positive("max_new_tokens")
        if self.pack and not self.word_times:
            raise UsageError("--pack needs word times to tell whose a word is: drop --no-word-times")
        if self.language is not None and self.languages is not None:
            raise UsageError("--language and --languages exclude each other: drop one of them")


@dataclass(frozen=True, kw_only=True)
class EmbeddingsConfig(Validated):
    """Which hidden states are kept, and in what form."""

    layers: str = option(
        "-1",
        "Hidden states to keep, by comma: 0 is the input of the first layer, 9 the output of the ninth, -1 of the last; all. "
        "wav2vec (v1): 0 or z, 1 or c.",
        results=True,
    )
    pool: str = option(
        "none",
        "none: every frame; mean, mean+std or max over the frames of a segment.",
        choices=("none", "mean", "mean+std", "max"),
        results=True,
    )
    frame_stride: int = option(1, "Keep the mean of every so many frames.", results=True)
    dtype: str = option(
        "fp16", "fp16, fp32, or int8 with one scale a vector.", choices=("fp16", "fp32", "int8"), results=True
    )
    l2_normalize: bool = option(False, "Scale every vector to length 1.", results=True)

    def check(self) -> None:
        self.require_positive("frame_stride")
        if self.pool != "none" and self.frame_stride != 1:
            raise UsageError(f"--frame-stride {self.frame_stride}: needs --pool none; pooling takes all frames")


@dataclass(frozen=True, kw_only=True)
class CodesConfig(Validated):
    """Which discrete units are wanted."""

    codebook: str = option(
        "quantizer",
        "quantizer: the checkpoint's own (wav2vec 2.0 pretraining checkpoints, vq-wav2vec); quantizer=MODEL: that of another checkpoint "
        "with the same convolutions; or a k-means codebook, FILE.safetensors (audiomill kmeans) or FILE.npy. Several: by comma.",
    )
    codebook_layer: int | None = option(None, "Layer that a .npy codebook is for.", results=True)
    deduplicate: bool = option(False, "Join runs of equal codes and give their durations in frames.", results=True)


@dataclass(frozen=True, kw_only=True)
class KmeansConfig(Validated):
    """How a codebook is fitted."""

    layer: int = option(9, "Hidden states to cluster: 9 is the output of the ninth layer, -1 of the last.")
    clusters: int = option(500, "Entries of the codebook.")
    seed: int = option(0, "Of the frames that are drawn and of the start.")
    num_seeds: int = option(3, "Fits from this many seeds; the best is kept, their agreement is reported.")
    max_frames: int = option(
        400_000,
        "Frames drawn at random to fit on; bounds memory (width x 4 bytes each, and the same again while drawing).",
    )
    max_iterations: int = option(100, "Lloyd steps a fit, at most.")
    audio_hours: float | None = option(None, "Use recordings, picked at random, of this many hours [default: all].")

    def check(self) -> None:
        self.require_positive("num_seeds", "max_frames", "max_iterations", "audio_hours")
        if not 2 <= self.clusters <= 65_536:
            raise UsageError(f"--clusters {self.clusters}: expected 2 to 65536 (codes are 16 bits)")


@dataclass(frozen=True, kw_only=True)
class PicturesConfig(Validated):
    """What a trace shows."""

    max_seconds: float = option(15.0, "Look at this much of the recording, from its start.")
    layers: str = option("auto", "Hidden states to show, by comma, or all; auto: the first, the middle and the last.")
    codebook: str = option("auto", "As for encode; auto: the checkpoint's own quantizer, if it has one.")
    codebook_layer: int | None = option(None, "Layer that a .npy codebook is for.")

    def check(self) -> None:
        self.require_positive("max_seconds")
