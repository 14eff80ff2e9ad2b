"""What a training starts from, and what it learns by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiomill.config.fields import digest, flag
from audiomill.config.stages import ModelConfig
from audiomill.config.train import FEATURES, PROJECTOR, SEQ2SEQ, TrainConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.checkpoint import (
    checkpoint_fingerprint,
    family_of,
    find_checkpoint,
    settings_of,
    weights_fingerprint,
)
from audiomill.models.family import learners_of, objectives
from audiomill.models.locate import local_path

_READ_BY = {
    "lm": (PROJECTOR,),
    "lm_prompt": (PROJECTOR,),
    "frame_stacking": (PROJECTOR,),
    "projector_width": (PROJECTOR,),
    "frame_dropout": (PROJECTOR,),
    "no_speech_augment_prob": (PROJECTOR,),
    "lora_rank": (PROJECTOR,),
    "head_width": (FEATURES,),
    "layer_weights": (FEATURES,),
    "encoder_layer": (FEATURES, PROJECTOR),
    "label_smoothing": (SEQ2SEQ,),
    "vocab_size": (SEQ2SEQ, FEATURES),
}
"""Options that only some objectives read."""


def _check_flags(train: TrainConfig) -> None:
    """Raises UsageError for objectives that contradict each other."""
    for name in (PROJECTOR, FEATURES):
        if getattr(train, name) and train.objective not in ("auto", name):
            raise UsageError(f"--{name} and --objective {train.objective}: two things to learn by; leave one out")
    if train.gradient_checkpointing and train.projector:
        raise UsageError(
            "--gradient-checkpointing: not with --projector, whose language model does not learn; take smaller --batch-seconds"
        )


def _objective_flag(objective: str) -> str:
    """How an objective is asked for."""
    return f"--{objective}" if objective in (PROJECTOR, FEATURES) else f"--objective {objective}"


def _check_read(train: TrainConfig, objective: str) -> None:
    """Raises UsageError for options that an objective does not read."""
    plain = TrainConfig()
    for name, readers in _READ_BY.items():
        if objective not in readers and getattr(train, name) != getattr(plain, name):
            raise UsageError(
                f"--{flag(name)}: read by {' and '.join(map(_objective_flag, readers))} alone; add it, or leave the option out"
            )
    if train.from_scratch and objective in (PROJECTOR, FEATURES):
        raise UsageError(f"--from-scratch: what is trained by --{objective} is new, its encoder is not; leave it out")


def start_of(train: TrainConfig, options: dict[str, Any]) -> tuple[Path, str, str]:
    """Folder to start from, the objective, and what tells the starting point from others.

    Raises:
        ModelError: nothing to start from.
        UsageError: the objective does not fit it.
    """
    _check_flags(train)
    asked = PROJECTOR if train.projector else FEATURES if train.features else train.objective
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
    able = learners_of(family)
    if not able or (asked == "auto" and not family.learners):
        raise ModelError(
            f"--model {train.model}: a {family.name} model is not trained here; expected Whisper or wav2vec2 family, or --features "
            "or --projector behind it"
        )
    usual = family.usual(path) if family.usual else next(iter(family.learners), "")
    objective = usual if asked == "auto" else asked
    _check_read(train, objective)
    if train.lm is not None:
        identity = f"{identity}, {weights_fingerprint(local_path(train.lm, options))}"
    if objective not in able:
        others = ", ".join(objectives().get(objective, ()))
        raise UsageError(
            f"--objective {objective}: learnt by {others}; {train.model} is a {family.name} checkpoint, "
            f"which learns by {', '.join(family.learners)}"
            + ("; --features trains a CTC head on its frames" if objective == "ctc" else "")
        )
    return path, objective, identity
