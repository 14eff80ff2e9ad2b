"""Which hidden states and discrete units are wanted, and how they are shown. See `audiomill.config.stages` for the rules."""

from __future__ import annotations

from dataclasses import dataclass

from audiomill.config.fields import Validated, option
from audiomill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class EmbeddingsConfig(Validated):
    """Which hidden states are kept, and in what form."""

    layers: str = option(
        "-1",
        "Hidden states to keep, by comma: 0 is the input of the first layer, 9 the output of the ninth, -1 of the last; all. "
        "wav2vec (v1): 0 or z, 1 or c.",
        results=True,
    )
    layer_weights: str | None = option(
        None,
        "One weighted sum of all hidden states in place of --layers: uniform, or a JSON file with a weight for each.",
        results=True,
    )
    pool: str = option(
        "none",
        "none: every frame; mean, mean+std or max over the frames of a segment.",
        choices=("none", "mean", "mean+std", "max"),
        results=True,
    )
    pool_speech: bool = option(
        False,
        "Pool over frames with speech alone (by voice activity); over all where a segment has none.",
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
        if self.pool_speech and self.pool == "none":
            raise UsageError("--pool-speech: needs --pool mean, mean+std or max; frames are kept with silence and all")


@dataclass(frozen=True, kw_only=True)
class CodesConfig(Validated):
    """Which discrete units are wanted."""

    codebook: str = option(
        "quantizer",
        "quantizer: the checkpoint's own (wav2vec 2.0 pretraining checkpoints, vq-wav2vec, codecs); quantizer=MODEL: that of another checkpoint "
        "with the same convolutions; or a k-means codebook, FILE.safetensors (audiomill kmeans) or FILE.npy. Several: by comma.",
    )
    codebook_layer: int | None = option(None, "Layer that a .npy codebook is for.", results=True)
    codebooks: int | None = option(
        None,
        "Of a quantizer with several, the first so many: of a codec the coarser ones.",
        otherwise="all",
        results=True,
    )
    bandwidth: float | None = option(
        None,
        "Kilobits a second in place of --codebooks: the codebooks of a codec that fit in.",
        otherwise="all codebooks",
        results=True,
    )
    deduplicate: bool = option(False, "Join runs of equal codes and give their durations in frames.", results=True)

    def check(self) -> None:
        self.require_positive("codebooks", "bandwidth")
        if self.codebooks is not None and self.bandwidth is not None:
            raise UsageError("--bandwidth: chooses the number of codebooks, as --codebooks does; give one of them")


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
    audio_hours: float | None = option(None, "Use recordings, picked at random, of this many hours.", otherwise="all")

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
