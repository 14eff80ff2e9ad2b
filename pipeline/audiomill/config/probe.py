"""Options of `probe`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audiomill.config.fields import Validated, option
from audiomill.errors import UsageError


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
class ProbeOutputConfig(Validated):
    """Where the results go."""

    output: str = option("", "Folder for weights.json (for `embed --layer-weights`), probe.json and probe.html.")
    quiet: bool = option(False, "No progress, only the final summary.")

    def check(self) -> None:
        if not self.output:
            raise UsageError("--output is missing: name a folder for the weights, e.g. --output probe/")


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
