"""Which family a checkpoint is of, whether it can give what is wanted, and its fingerprint. Loads no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fsspec

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.family import (
    BEAMS,
    FUSION,
    POSTERIORS,
    PUNCTUATION,
    TEXT,
    TRANSLATION,
    VOICES,
    Facts,
    Family,
    by_scheme,
    families,
)
from audiomill.models.locate import NEMO, local_path
from audiomill.models.task import Shape
from audiomill.storage.content_cache import once_per_content

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


def unknown_model_hint(settings: Mapping[str, Any]) -> str:
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


WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin", "model.bin")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was found.

    `name`: what every worker can find it by (absolute where it is a path); `path`: local folder or file here (or the
    name again, where there are no files); `gives`, `whole_s`: see `audiomill.models.family`.
    """

    name: str
    path: str
    family: Family
    gives: frozenset[str]
    whole_s: float | None = None

    def offers(self, output: str) -> bool:
        """Whether it can give one of the outputs that `audiomill.models.family` names."""
        return output in self.gives

    def require(self, output: str, otherwise: str) -> None:
        """Raises ModelError with the text `otherwise` where it cannot give an output."""
        if not self.offers(output):
            raise ModelError(otherwise)


def find_checkpoint(config: ModelConfig, storage_options: dict[str, Any]) -> Checkpoint:
    """Locates a checkpoint, downloads it if need be, and finds its family without loading weights.

    Raises:
        ModelError: nothing there, or of no family that is known here.
    """
    if (without_files := by_scheme(config.model)) is not None:
        gives = without_files.gives(Path(config.model), {})
        return Checkpoint(name=config.model, path=config.model, family=without_files, gives=gives)
    path = local_path(config.model, storage_options)
    name = str(path) if Path(config.model).exists() else config.model
    if path.is_dir() and not _weights(path):
        if archives := sorted(path.glob("*.nemo")):
            raise ModelError(f"{config.model}: {archives[0].name} is {NEMO}")
        raise ModelError(
            f"{config.model}: no weights found; expected a folder with *.safetensors, pytorch_model.bin or a CTranslate2 model.bin"
        )
    settings = settings_of(path)
    family = family_of(path, settings, config.model)
    if (missing := needs_newer(family)) is not None:
        raise ModelError(f"{config.model}: {missing}")
    gives, whole_s = family.gives(path, settings), family.whole_s(settings)
    return Checkpoint(name=name, path=str(path), family=family, gives=gives, whole_s=whole_s)


def settings_of(path: Path) -> dict[str, Any]:
    """config.json of a folder; {} for files and where there is none.

    Raises:
        ModelError: it is no JSON object.
    """
    place = path / "config.json"
    if not place.is_file():
        return {}
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{place}: expected JSON, got: {error}; take the checkpoint's own config.json") from error
    if not isinstance(values, dict):
        raise ModelError(f"{place}: expected a JSON object, got {type(values).__name__}")
    return values


def family_of(path: Path, settings: dict[str, Any], name: str) -> Family:
    """The family of a folder or file.

    Raises:
        ModelError: none of those that are known here.
    """
    if (without_files := by_scheme(name)) is not None:
        return without_files
    for family in families():
        if family.recognises(path, settings):
            return family
    if path.is_dir() and not (path / "config.json").exists():
        raise ModelError(f"{name}: no config.json beside the weights; expected a Hugging Face or CTranslate2 folder")
    raise ModelError(f"{name}: {unknown_model_hint(settings)}")


def makes_voices(model: str) -> bool:
    """Whether a model, by its name in a table, makes vectors of voices; False where it cannot be found any more."""
    try:
        return VOICES in find_checkpoint(ModelConfig(model=model), {}).gives
    except ModelError:
        return False


def check_options(checkpoint: Checkpoint, model: str, text: TranscriptConfig) -> None:
    """Tells options that do not fit a checkpoint that shall transcribe, before anything is started.

    Raises:
        ModelError: no text from this one, a language that it does not know, a translation by an English-only one.
    """
    checkpoint.require(
        TEXT,
        f"{model}: a checkpoint without CTC head; transcribing needs a fine-tuned ...ForCTC or Whisper one "
        "(embed and encode can use this one)",
    )
    search, is_ctc = text.decoder, checkpoint.offers(POSTERIORS)
    if not is_ctc and (search.save_posteriors or (search.beam_size > 1 and not checkpoint.offers(BEAMS))):
        option = "--save-posteriors" if search.save_posteriors else "--beam-size"
        raise ModelError(f"{option}: {model} is no CTC model; use a ...ForCTC checkpoint, or leave it out")
    unread = ("coverage_score",) if is_ctc else ("lexicon", "hotwords")
    if not is_ctc and not checkpoint.offers(FUSION):
        unread = (*unread, "lm", "rescore_model", "coverage_score")
        if search.num_best > 1:
            raise ModelError(f"--num-best: {model} keeps one text of a segment; leave it out")
    for name in unread:
        if getattr(search, name):
            hint = "leave it out; Whisper takes such words in --prompt" if name == "hotwords" else "leave it out"
            raise ModelError(f"--{name.replace('_', '-')}: {model} does not read it; {hint}")
    if text.task == "translate":
        checkpoint.require(
            TRANSLATION, f"--task translate: {model} does not translate; use a multilingual Whisper or Canary"
        )
    if not text.punctuation:
        checkpoint.require(
            PUNCTUATION, f"--no-punctuation: {model} writes as it was trained; only Canary has a choice, leave it out"
        )
    checkpoint.family.check(Path(checkpoint.path), model, text)


def shape_of(checkpoint: Checkpoint) -> Shape:
    """Width, layers, frame clock and quantizer."""
    return checkpoint.family.shape(Path(checkpoint.path))


def describe_checkpoint(model: str, storage_options: dict[str, Any]) -> str:
    """What a checkpoint is and gives, for people.

    Args:
        model: hub id, folder or URL.
        storage_options: for fsspec.
    """
    checkpoint = find_checkpoint(ModelConfig(model=model), storage_options)
    shape, family = shape_of(checkpoint), checkpoint.family
    formats = "; ".join(f"{device}: {', '.join(names)}" for device, names in family.precisions.items())
    window = f", {family.window_s:g} s at once" if family.window_s is not None else ""
    rate = float(MODEL_SAMPLE_RATE / shape.step)
    lines = [
        f"{model}: {family.name} ({family.checkpoints})",
        f"  gives           {', '.join(sorted(checkpoint.gives))}",
        f"  frames          {rate:g} a second{window}",
        f"  number formats  {formats}",
    ]
    if shape.num_layers >= 0:
        lines.insert(2, f"  hidden states   0 to {shape.num_layers}, {shape.width} values")
    if shape.quantizer is not None:
        codebooks, entries = shape.quantizer
        lines.insert(2, f"  own codes       {codebooks} codebook{'s' * (codebooks > 1)} of {entries} entries")
    if family.facts is not None:
        lines += [f"  exact           {family.facts.exact}", f"  licence         {family.facts.licence}"]
    return "\n".join(lines)


def checkpoint_fingerprint(checkpoint: Checkpoint) -> str:
    """Hash of the weight files' contents: the same weights under another path count as the same."""
    return checkpoint.path if checkpoint.family.scheme is not None else _hash(Path(checkpoint.path))


def weights_fingerprint(folder: Path) -> str:
    """The same of a folder, or file, that is no checkpoint of ours, such as a language model's."""
    return _hash(folder)


@once_per_content
def _hash(path: Path) -> str:
    total = hashlib.sha256()
    for block in (block for path in ([path] if path.is_file() else _weights(path)) for block in _blocks(path)):
        total.update(block)
    return total.hexdigest()[:16]


def _weights(folder: Path) -> list[Path]:
    for pattern in WEIGHT_PATTERNS:
        weights = sorted(folder.glob(pattern))
        if weights:
            return weights
    return []


def _blocks(path: Path) -> Iterator[bytes]:
    with fsspec.open(str(path), "rb") as handle:
        while block := handle.read(1 << 24):
            yield block
