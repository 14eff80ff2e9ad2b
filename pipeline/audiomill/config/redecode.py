"""Options of the jobs that read kept posteriors: `redecode` and `tune-decoder`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audiomill.config.fields import Validated, option
from audiomill.config.search import SearchConfig
from audiomill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RedecodeEngineConfig(Validated):
    """Where the work is done."""

    storage_options: dict[str, Any] = option({}, "fsspec options as JSON.")
    workers: int | None = option(None, "Processes that work side by side.", otherwise="one a core")

    def check(self) -> None:
        self.require_positive("workers")


@dataclass(frozen=True, kw_only=True)
class RedecodeOutputConfig(Validated):
    """Where the results go."""

    output: str = option("", "Folder or URL for the tables; for tune-decoder, a folder for the settings.")
    overwrite: bool = option(False, "Delete what the output holds and start anew.")
    quiet: bool = option(False, "No progress, only the final summary.")

    def check(self) -> None:
        if not self.output:
            raise UsageError("--output is missing: name a folder for the results, e.g. --output respelled/")


@dataclass(frozen=True, kw_only=True)
class _Kept:
    LEFT_OUT = frozenset(("coverage_score",))

    inputs: tuple[str, ...]
    decoder: SearchConfig = SearchConfig()
    storage: RedecodeEngineConfig = RedecodeEngineConfig()
    output: RedecodeOutputConfig

    def only_input(self) -> str:
        """The one output that is read.

        Raises:
            UsageError: several.
        """
        if len(self.inputs) != 1:
            raise UsageError(f"expected one OUTPUT with posteriors, got {len(self.inputs)}: {', '.join(self.inputs)}")
        return self.inputs[0]


@dataclass(frozen=True, kw_only=True)
class TunedConfig(Validated):
    """Weights that are found before a corpus is spelled."""

    tune_on: str | None = option(
        None,
        "Output of `transcribe --save-posteriors` on audio with known text: the weights are found there first, as tune-decoder does.",
        otherwise="the weights as given",
    )
    tune_trials: int = option(40, "Settings that --tune-on tries.")

    def check(self) -> None:
        self.require_positive("tune_trials")


@dataclass(frozen=True, kw_only=True)
class RedecodeConfig(_Kept):
    """`audiomill redecode`: kept posteriors to text."""

    tuned: TunedConfig = TunedConfig()


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Validated):
    """How weights are searched for."""

    trials: int = option(40, "Settings that are tried.")
    references: str | None = option(None, "File of reference texts.", otherwise="those that came with the audio")
    language: str | None = option(None, "Normalise texts as this language when scoring.")

    def check(self) -> None:
        self.require_positive("trials")


@dataclass(frozen=True, kw_only=True)
class TuneJobConfig(_Kept):
    """`audiomill tune-decoder`: weights of the decoder from audio with known text."""

    tune: TuneConfig = TuneConfig()
