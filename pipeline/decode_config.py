"""Options of the jobs that read kept posteriors: `decode` and `tune-decoder`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.decoder_config import DecoderConfig
from pipeline.errors import UsageError
from pipeline.fields import Validated, option


@dataclass(frozen=True, kw_only=True)
class DecodeRunConfig(Validated):
    """Where the work is done."""

    storage_options: dict[str, Any] = option({}, "fsspec options as JSON.")
    workers: int | None = option(None, "Processes that decode side by side [default: one a core].")

    def check(self) -> None:
        self.require_positive("workers")


@dataclass(frozen=True, kw_only=True)
class DecodeOutputConfig(Validated):
    """Where the results go."""

    output: str = option("", "Folder or URL for the tables; for tune-decoder, a folder for the settings.")
    overwrite: bool = option(False, "Delete what the output holds and start anew.")
    quiet: bool = option(False, "No progress, only the final summary.")

    def check(self) -> None:
        if not self.output:
            raise UsageError("--output is missing: name a folder for the results, e.g. --output decoded/")


@dataclass(frozen=True, kw_only=True)
class _Kept:
    inputs: tuple[str, ...]
    decoder: DecoderConfig = DecoderConfig()
    storage: DecodeRunConfig = DecodeRunConfig()
    output: DecodeOutputConfig

    def only_input(self) -> str:
        """The one output that is read.

        Raises:
            UsageError: several.
        """
        if len(self.inputs) != 1:
            raise UsageError(f"expected one OUTPUT with posteriors, got {len(self.inputs)}: {', '.join(self.inputs)}")
        return self.inputs[0]


@dataclass(frozen=True, kw_only=True)
class DecodeJobConfig(_Kept):
    """`audiomill decode`: kept posteriors to text."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Validated):
    """How weights are searched for."""

    trials: int = option(40, "Settings that are tried.")
    references: str | None = option(None, "File of reference texts [default: those that came with the audio].")
    language: str | None = option(None, "Normalise texts as this language when scoring.")

    def check(self) -> None:
        self.require_positive("trials")


@dataclass(frozen=True, kw_only=True)
class TuneJobConfig(_Kept):
    """`audiomill tune-decoder`: weights of the decoder from audio with known text."""

    tune: TuneConfig = TuneConfig()
