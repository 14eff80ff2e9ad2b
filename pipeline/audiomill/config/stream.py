"""Options of audio that is heard while it comes: `listen`, and jobs with `--segment stream`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audiomill.config.fields import Validated, option
from audiomill.config.stages import ChunksConfig, ModelConfig


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
