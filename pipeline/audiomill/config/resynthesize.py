"""Options of `resynthesize`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audiomill.config.fields import Validated, option
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
