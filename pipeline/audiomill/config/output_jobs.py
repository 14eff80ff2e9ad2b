"""Options of the jobs that read a finished output: `redecode`, `tune-decoder`, `probe` and `resynthesize`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audiomill.config.fields import Validated, option
from audiomill.config.stages import OutputPlace
from audiomill.config.text import SearchConfig
from audiomill.errors import UsageError

COPIES_FOLDER = "resynthesis"


@dataclass(frozen=True, kw_only=True)
class CopiesConfig(Validated):
    """Which codes become sound, and what the copies are compared with."""

    codec: str | None = option(None, "Whose codes: a checkpoint of the job.", otherwise="the only codec of the job")
    codebooks: int | None = option(None, "Use the first so many codebooks.", otherwise="all that were kept")
    recogniser: str | None = option(
        None,
        "Model that hears original and copy: how many words the copy loses. none: do without.",
        otherwise="the job's own, where it transcribes",
    )
    most: int | None = option(None, "Segments to make, picked evenly.", otherwise="all")
    device: str = option("auto", "auto, cpu or cuda.")
    storage_options: dict[str, Any] = option({}, "fsspec options as JSON.")

    def check(self) -> None:
        self.require_positive("codebooks", "most")


@dataclass(frozen=True, kw_only=True)
class CopiesOutputConfig(Validated):
    """Where the copies go."""

    output: str | None = option(
        None, "Folder or URL for sound and quality.", otherwise=f"{COPIES_FOLDER}/ in the output that is read"
    )
    overwrite: bool = option(False, "Make copies again that are there.")
    quiet: bool = option(False, "No progress, only the final summary.")


@dataclass(frozen=True, kw_only=True)
class ResynthesizeConfig:
    """`audiomill resynthesize`: codes back to sound."""

    inputs: tuple[str, ...]
    copies: CopiesConfig = CopiesConfig()
    output: CopiesOutputConfig = CopiesOutputConfig()

    def only_input(self) -> str:
        """The one output that is read.

        Raises:
            UsageError: none or several.
        """
        if len(self.inputs) != 1:
            raise UsageError(f"expected one OUTPUT with codes of a codec, got {len(self.inputs)}")
        return self.inputs[0]


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(Validated):
    """What is told from the vectors, and how that is measured."""

    labels: str | None = option(
        None,
        "File with the labels: JSON lines, CSV or TSV, with an id, member or path column.",
        otherwise="the manifest that the audio came with",
    )
    by: str = option("label", "Column that is told from the vectors, such as speaker or language.")
    group: str | None = option(
        None, "Column whose values are never in both halves of a test, such as session.", otherwise="the recording"
    )
    pool: str | None = option(None, "Which pooled vectors, where the output has several.")
    folds: int = option(5, "Cross-validation: parts that are told from the others.")
    l2: float = option(1e-4, "Weight of the squared parameters in the loss.")
    max_segments: int = option(20_000, "Segments to learn from, picked evenly; bounds memory.")
    seed: int = option(0, "Of the folds.")
    storage_options: dict[str, Any] = option({}, "fsspec options as JSON.")

    def check(self) -> None:
        self.require_positive("max_segments", "l2")
        if self.folds < 2:
            raise UsageError(f"--folds {self.folds}: expected 2 or more")


@dataclass(frozen=True, kw_only=True)
class ProbeOutputConfig(OutputPlace):
    """Where the results go."""

    EXAMPLE = "name a folder for the weights, e.g. --output probe/"
    LEFT_OUT = frozenset(("overwrite",))

    output: str = option("", "Folder for weights.json (for `embed --layer-weights`), probe.json and probe.html.")


@dataclass(frozen=True, kw_only=True)
class ProbeJobConfig:
    """`audiomill probe`: what the layers of a model know."""

    inputs: tuple[str, ...]
    probe: ProbeConfig = ProbeConfig()
    output: ProbeOutputConfig

    def only_input(self) -> str:
        """The one output that is read.

        Raises:
            UsageError: several.
        """
        if len(self.inputs) != 1:
            raise UsageError(f"expected one OUTPUT with pooled vectors, got {len(self.inputs)}")
        return self.inputs[0]


@dataclass(frozen=True, kw_only=True)
class RedecodeEngineConfig(Validated):
    """Where the work is done."""

    storage_options: dict[str, Any] = option({}, "fsspec options as JSON.")
    workers: int | None = option(None, "Processes that work side by side.", otherwise="one a core")

    def check(self) -> None:
        self.require_positive("workers")


@dataclass(frozen=True, kw_only=True)
class RedecodeOutputConfig(OutputPlace):
    """Where the results go."""

    EXAMPLE = "name a folder for the results, e.g. --output redecoded/"

    output: str = option("", "Folder or URL for the tables; for tune-decoder, a folder for the settings.")


@dataclass(frozen=True, kw_only=True)
class _SavedPosteriors:
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
class RedecodeConfig(_SavedPosteriors):
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
class TuneJobConfig(_SavedPosteriors):
    """`audiomill tune-decoder`: weights of the decoder from audio with known text."""

    tune: TuneConfig = TuneConfig()
