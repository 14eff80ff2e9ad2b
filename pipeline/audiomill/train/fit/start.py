"""What a training starts from, and what it learns by."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from audiomill.config.fields import digest, flag
from audiomill.config.stages import ModelConfig
from audiomill.config.train import TrainConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.checkpoint import (
    checkpoint_fingerprint,
    family_of,
    find_checkpoint,
    settings_of,
    weights_fingerprint,
)
from audiomill.models.family import learning_by, objectives, objectives_of
from audiomill.models.locate import local_path

_DEFAULTS = {"learning_rate": 1e-4, "weight_decay": 0.01}
"""Of options that nobody gave, where the objective has none of its own."""


def with_defaults(train: TrainConfig, objective: str) -> TrainConfig:
    """A config in which what nobody gave is as the objective has it."""
    defaults = {**_DEFAULTS, **objectives()[objective].defaults}
    return replace(train, **{name: value for name, value in defaults.items() if getattr(train, name) is None})


def _asked_objective(train: TrainConfig) -> str:
    """The objective that is asked for, by its flag or by --objective; "auto": by the checkpoint.

    Raises:
        UsageError: both, and they differ.
    """
    flags = [name for name, each in objectives().items() if each.is_flag and getattr(train, name)]
    for name in flags:
        if train.objective not in ("auto", name):
            raise UsageError(f"--{name} and --objective {train.objective}: two things to learn by; leave one out")
    return flags[0] if flags else train.objective


def _check_read(train: TrainConfig, objective: str, learns_on: bool) -> None:
    """Raises UsageError for options that an objective does not read, or only where its weights are new."""
    plain, known = TrainConfig(), objectives()
    given = [each.name for each in fields(train) if getattr(train, each.name) != getattr(plain, each.name)]
    for name in given:
        readers = [reader for reader, each in known.items() if name in each.options]
        if readers and objective not in readers:
            asked = [f"--{each}" if known[each].is_flag else f"--objective {each}" for each in readers]
            raise UsageError(f"--{flag(name)}: read by {' and '.join(asked)} alone; add it, or leave the option out")
        if learns_on and name in known[objective].new_options:
            raise UsageError(
                f"--{flag(name)}: {train.model} has its own already; leave it out, or start from its encoder"
            )
        if name in known[objective].refuses:
            raise UsageError(f"--{flag(name)}: {known[objective].refuses[name]}; leave it out")


def start_of(train: TrainConfig, options: dict[str, Any]) -> tuple[Path, str, str]:
    """Folder to start from, the objective, and what tells the starting point from others.

    Raises:
        ModelError: nothing to start from.
        UsageError: the objective does not fit it.
    """
    asked = _asked_objective(train)
    if train.from_scratch:
        path = local_path(train.model, options)
        if not (path / "config.json").exists():
            raise ModelError(f"--model {train.model}: --from-scratch needs a folder with config.json")
        family = family_of(path, settings_of(path), train.model)
        identity = digest({"scratch": (path / "config.json").read_text()})
    else:
        config = ModelConfig(model=train.model, trust_remote_code=train.trust_remote_code)
        checkpoint = find_checkpoint(config, options)
        path, family, identity = Path(checkpoint.path), checkpoint.family, checkpoint_fingerprint(checkpoint)
    able = objectives_of(family)
    if not able or (asked == "auto" and not family.learners):
        raise ModelError(
            f"--model {train.model}: a {family.name} model is not trained here; expected Whisper or wav2vec2 family, or --features "
            "or --projector behind it"
        )
    usual = family.usual(path) if family.usual else next(iter(family.learners), "")
    objective = usual if asked == "auto" else asked
    if train.lm is not None:
        identity = f"{identity}, {weights_fingerprint(local_path(train.lm, options))}"
    if objective not in able:
        others = ", ".join(learning_by(objective))
        raise UsageError(
            f"--objective {objective}: learnt by {others}; {train.model} is a {family.name} checkpoint, "
            f"which learns by {', '.join(family.learners)}"
            + ("; --features trains a CTC head on its frames" if objective == "ctc" else "")
        )
    _check_read(train, objective, objective in family.learners)
    return path, objective, identity
