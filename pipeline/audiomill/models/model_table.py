"""The families as people see them: the table of docs/models.md and of `audiomill models`, and what a checkpoint is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from audiomill.models.family import Facts, Family, families

HEADINGS = ("family", "checkpoints", "gives", "number formats", "exact", "licence")
NEAREST = (
    ("ForCTC", "wav2vec2", "an encoder with a CTC head"),
    ("ForTDT", "transducer", "a transducer"),
    ("ForRNNT", "transducer", "a transducer"),
    ("ForSpeechSeq2Seq", "moonshine", "an encoder-decoder recogniser"),
    ("ForConditionalGeneration", "whisper", "an encoder-decoder, or a language model with an ear"),
    ("ForCausalLM", "whisper", "a language model"),
    ("ForAudioFrameClassification", "wav2vec2", "a classifier of frames"),
    ("ForSequenceClassification", "wav2vec2", "a classifier of recordings"),
)
"""Ends of the names of transformers' classes: the family that does most nearly the same, and what it is."""
FIRST_VERSION = (5, 0)


def model_rows() -> list[tuple[str, ...]]:
    """A row a family, in the order of `HEADINGS`."""
    return [
        (
            family.name,
            ", ".join(facts.examples),
            facts.offers,
            "; ".join(f"{device}: {', '.join(names)}" for device, names in family.precisions.items()),
            facts.exact + (f"; needs transformers {_version(facts)}" if facts.transformers > FIRST_VERSION else ""),
            facts.licence,
        )
        for family in families()
        if (facts := family.facts) is not None
    ]


def model_page() -> str:
    """docs/models.md."""
    rows = [f"| {' | '.join(row)} |" for row in model_rows()]
    return "\n".join(
        (
            "# Models\n",
            "Made from the families by `tests/test_docs.py`; `audiomill models` prints it, and `audiomill models CHECKPOINT` says what",
            "a checkpoint is. Checkpoints are hub ids, folders or URLs.\n",
            f"| {' | '.join(HEADINGS)} |",
            f"|{' --- |' * len(HEADINGS)}",
            *rows,
            "\nA checkpoint's licence is its own: read it where the weights are from. No code and no pickle of a checkpoint is run.",
            "A family that is missing is one folder: [how to add one](architecture.md#a-model-family).\n",
        )
    )


def told_unknown(settings: Mapping[str, Any]) -> str:
    """What the configuration of a checkpoint that no family reads says it is, what is nearest, and what would be needed."""
    kind, classes = settings.get("model_type"), [str(each) for each in settings.get("architectures") or ()]
    name = classes[0] if classes else "no architecture told"
    result = next((each for each in NEAREST if name.endswith(each[0])), None)
    is_what = f", {result[2]}" if result else ""
    nearest = next((family for family in families() if result and family.name == result[1]), None)
    instead = f"nearest here: {nearest.checkpoints}" if nearest else "see `audiomill models`"
    return f"model type {kind!r} ({name}{is_what}) is not read here; {instead}; it would need a family of its own"


def needs_newer(family: Family) -> str | None:
    """What to install for a family that the installed transformers does not have; None where it has."""
    installed = version("transformers")
    if family.facts is None or tuple(int(part) for part in installed.split(".")[:2]) >= family.facts.transformers:
        return None
    needed = _version(family.facts)
    return f"{family.checkpoints} needs transformers {needed}, {installed} is installed: pip install -U transformers"


def _version(facts: Facts) -> str:
    return ".".join(map(str, facts.transformers))
