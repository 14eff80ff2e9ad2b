"""What the rest of the house knows of a model family: one value a folder. Nothing outside a folder names its family.

A family is a folder of `models/` with a `family.py` that holds FAMILY; being there is all it takes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import Form
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.base import SpeechModel
from audiomill.models.task import Shape, TaskSpec
from audiomill.text.normalize import Text

if TYPE_CHECKING:
    import torch

    from audiomill.config.optimization import OptimizationConfig
    from audiomill.config.train import TrainConfig
    from audiomill.models.learner import Learner
    from audiomill.models.vectors.readout import Quantizer

TEXT, VECTORS, CODES, ALIGNMENT, POSTERIORS, TRANSLATION, PUNCTUATION, VOICES, TURNS, TAGS, BEAMS, FUSION = (
    "text", "vectors", "codes", "alignment", "posteriors", "translation", "punctuation", "voices", "turns", "tags", "beams", "fusion",
)  # fmt: skip
"""What checkpoints may give. `fusion`: several texts of a beam search, with a language model beside the decoder."""


@dataclass(frozen=True)
class Loading:
    """What a family loads a model from. `quantizers`: by name of the want."""

    path: Path
    task: TaskSpec
    device: torch.device
    quantizers: Mapping[str, Quantizer]
    storage_options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a checkpoint can be trained for.

    Attributes:
        load: folder or file, options, texts of the clips and device -> what learns.
        needs_text: it learns from labels; False: from audio alone.
        is_flag: it is asked for by a flag of its name.
        options: that it reads; an option that some objective lists is refused where another is trained.
        new_options: of these, the ones that only new weights read: what learns on has its own.
        defaults: of options that nobody gave.
        refuses: options that do not go with it, and why.
    """

    load: Callable[[Path, TrainConfig, Sequence[Text], torch.device], Learner]
    needs_text: bool = True
    is_flag: bool = False
    options: tuple[str, ...] = ()
    new_options: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)


class Resynthesizer(Protocol):
    """Makes sound of a model's own codes. `form`: of the sound."""

    form: Form

    def sound(self, codes_KF: NDArray[Any], scales: Sequence[float]) -> NDArray[np.float32]:
        """wave_TK; see the codes table for `scales`."""
        ...


@dataclass(frozen=True)
class Late:
    """A function that is imported when it is called first: a family is known without torch.

    Attributes:
        target: "module:function".
    """

    target: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)(*args, **kwargs)


def always(*outputs: str) -> Callable[[Path, Mapping[str, Any]], frozenset[str]]:
    """For families whose checkpoints all give the same."""
    return lambda path, settings: frozenset(outputs)


def of_type(*model_types: str) -> Callable[[Path, Mapping[str, Any]], bool]:
    """For families that config.json names."""
    return lambda path, settings: settings.get("model_type") in model_types


def check_nothing(path: Path, model: str, text: TranscriptConfig) -> None:
    """For families whose checkpoints take every option."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What people are told of a family: in docs/models.md and by `audiomill models`.

    Attributes:
        examples: checkpoints by their names on the hub, or where they come from.
        offers: what its checkpoints give, most of them.
        exact: what is the same whatever the batch, and how that is known.
        licence: of the checkpoints.
        transformers: version that has it first.
    """

    examples: tuple[str, ...]
    offers: str
    exact: str
    licence: str
    transformers: tuple[int, int] = (5, 0)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family.

    Attributes:
        name: of its folder.
        checkpoints: for people: which ones it reads.
        facts: for people; None for families that are not shown.
        recognises: a folder (or file) and its config.json, {} where it has none; config.json may stand alone.
        gives: what a checkpoint can give, some of the words above.
        shape: width, layers and clock of a checkpoint.
        check: raises ModelError for options that do not fit a checkpoint that shall transcribe.
        load: a model, ready to use.
        window_s: longest audio that it reads at once; None: any.
        whole_s: by config.json: longest recording that it reads as one although it is longer than a window; None: four windows.
        reads_alone: each window is read without its neighbours, so windows are cut at quiet moments.
        speech_segment_s: longest segment of what voice activity found, where shorter than the window is better.
        batch_seconds: padded audio a batch, by device.
        precisions: that `--precision` may name, by device.
        prefers_int8: `--precision auto` takes int8 for text on a CPU.
        vocabulary_size: where texts that it is unsure of may be read again by a larger model of the same vocabulary.
        only_language: of checkpoints that know one alone, for people.
        quantizes_itself: codes of its own quantizer come out of its forward pass, not from hidden states.
        lends_quantizer: its quantizers read the output of convolutions, which a fine-tuned checkpoint may share.
        shows_convolutions: `trace` can show them.
        times_words: its texts come with times of words, found by itself.
        shows_activations: its models tell `trace` what happens between encoder and text, see `audiomill.models.causal.activation_trace`.
        reads_log_mel: `trace` shows a spectrogram as its input.
        resynthesizer: from a folder and a device, what makes sound of its codes; None: nothing does.
        embedder: from a checkpoint and a device, what makes vectors of voices, see `audiomill.models.speakers.embedder`.
        learners: what its checkpoints can be trained for, by name; the first one is the default.
        usual: by a folder or file, the objective that is meant where nobody says one; None: the first of the learners.
        joins: what checkpoints of other families, which give vectors, can be trained for.
        code_learner: from the folder of a plan and its sequences (see `audiomill.models.codes.unit_plan`), what learns to
            be the language model over them.
        scheme: prefix of names that stand for no files; their fingerprint is the name.
    """

    name: str
    checkpoints: str
    facts: Facts | None = None
    recognises: Callable[[Path, Mapping[str, Any]], bool]
    gives: Callable[[Path, Mapping[str, Any]], frozenset[str]]
    shape: Callable[[Path], Shape]
    load: Callable[[Loading], SpeechModel]
    check: Callable[[Path, str, TranscriptConfig], None] = check_nothing
    window_s: float | None = None
    whole_s: Callable[[Mapping[str, Any]], float | None] = lambda settings: None
    reads_alone: bool = False
    speech_segment_s: float | None = None
    batch_seconds: Mapping[str, float]
    precisions: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"cpu": ("fp32", "bf16"), "cuda": ("fp16", "bf16", "fp32")}
    )
    prefers_int8: bool = False
    vocabulary_size: Callable[[Path], int] | None = None
    only_language: Callable[[Path], str | None] = lambda path: None
    quantizes_itself: bool = False
    lends_quantizer: bool = False
    shows_convolutions: Callable[[Path], bool] = lambda path: False
    times_words: bool = False
    shows_activations: bool = False
    reads_log_mel: bool = False
    resynthesizer: Callable[[Path, str], Resynthesizer] | None = None
    embedder: Callable[[Path, str], Any] | None = None
    learners: Mapping[str, Objective] = field(default_factory=dict)
    usual: Callable[[Path], str] | None = None
    joins: Mapping[str, Objective] = field(default_factory=dict)
    code_learner: Callable[[Path, OptimizationConfig, torch.device], Learner] | None = None
    scheme: str | None = None


@cache
def families() -> tuple[Family, ...]:
    """Every family, by name."""
    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("*/family.py"))
    return tuple(importlib.import_module(f"audiomill.models.{name}.family").FAMILY for name in folders)


def by_scheme(model: str) -> Family | None:
    """The family of a name that stands for no files."""
    named = (family for family in families() if family.scheme is not None and model.startswith(family.scheme))
    return next(named, None)


def has_files(model: str) -> bool:
    """Whether a name stands for files with weights."""
    return by_scheme(model) is None


def objectives_of(family: Family) -> dict[str, Objective]:
    """What a checkpoint of a family can be trained for: its own, and those that join any family."""
    return {**{name: each for other in families() for name, each in other.joins.items()}, **family.learners}


@cache
def objectives() -> dict[str, Objective]:
    """Every objective, by name."""
    return {name: each for family in families() for name, each in {**family.joins, **family.learners}.items()}


def learning_by(objective: str) -> list[str]:
    """Names of the families that learn by an objective."""
    return [family.name for family in families() if objective in family.learners]


def check_one_language(path: Path, model: str, text: TranscriptConfig) -> None:
    """Raises ModelError for what only Whisper reads, and for languages to choose from."""
    check_plain(model, text)
    if text.languages is not None:
        raise ModelError(f"--languages: {model} detects no language; say --language, which stands in the rows")


def check_plain(model: str, text: TranscriptConfig) -> None:
    """Raises ModelError for what only Whisper reads."""
    asked = {"--prompt": text.prompt, "--suppress-numerals": text.suppress_numerals}
    for option, value in asked.items():
        if value:
            raise ModelError(f"{option}: {model} does not read it, only Whisper does; leave it out")
    if text.second_pass_model is not None and text.second_pass_threshold is None:
        raise ModelError(
            f"--second-pass-model: behind {model} it needs --second-pass-threshold; only Whisper has a second model as its last fallback level"
        )
