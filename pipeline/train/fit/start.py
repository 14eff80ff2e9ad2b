"""What a training starts from, and what it learns by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiomill.config.fields import digest
from audiomill.config.stages import ModelConfig
from audiomill.config.train import FEATURES, PROJECTOR, TrainConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.checkpoint import family_of, find_checkpoint, fingerprint, settings_of, weights_fingerprint
from audiomill.models.family import learners_of, objectives
from audiomill.models.locate import local_path


def start_of(train: TrainConfig, options: dict[str, Any]) -> tuple[Path, str, str]:
    """Folder to start from, the objective, and what tells the starting point from others.

    Raises:
        ModelError: nothing to start from.
        UsageError: the objective does not fit it.
    """
    asked = PROJECTOR if train.projector else FEATURES if train.features else train.objective
    if train.lm is not None and asked not in (PROJECTOR, "auto"):
        raise UsageError(f"--lm: --objective {asked} reads no language model; add --projector, or leave it out")
    if train.from_scratch:
        if asked in (PROJECTOR, FEATURES):
            raise UsageError(f"--from-scratch: what is trained by --{asked} is new, its encoder is not; leave it out")
        path = local_path(train.model, options)
        if not (path / "config.json").exists():
            raise ModelError(f"--model {train.model}: --from-scratch needs a folder with config.json")
        family = family_of(path, settings_of(path), train.model)
        identity = digest({"scratch": (path / "config.json").read_text()})
    else:
        config = ModelConfig(model=train.model, trust_remote_code=train.trust_remote_code)
        checkpoint = find_checkpoint(config, options)
        path, family, identity = Path(checkpoint.path), checkpoint.family, fingerprint(checkpoint)
    able = learners_of(family)
    if not able or (asked == "auto" and not family.learners):
        raise ModelError(
            f"--model {train.model}: a {family.name} model is not trained here; expected Whisper or wav2vec2 family, or --features "
            "or --projector behind it"
        )
    objective = next(iter(family.learners)) if asked == "auto" else asked
    if train.lm is not None:
        if objective != PROJECTOR:
            raise UsageError("--lm: only a projector reads a language model; add --projector")
        identity = f"{identity}, {weights_fingerprint(local_path(train.lm, options))}"
    if objective not in able:
        others = ", ".join(objectives().get(objective, ()))
        raise UsageError(
            f"--objective {objective}: learnt by {others}; {train.model} is a {family.name} checkpoint, "
            f"which learns by {', '.join(family.learners)}"
        )
    return path, objective, identity
