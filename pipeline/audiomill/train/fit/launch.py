"""One training, wherever it runs: in this process, in several on this machine, under torchrun or on Ray."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from rich.console import Console

from audiomill.config.optimization import OptimizationConfig
from audiomill.config.train import TrainConfig
from audiomill.models.checkpoint import family_of, settings_of
from audiomill.models.device import resolve_device
from audiomill.models.family import families, objectives_of
from audiomill.models.learner import Learner
from audiomill.train.clips import Clips
from audiomill.train.fit.checkpoint_sync import Mirror, mirror_of
from audiomill.train.fit.metrics_history import Recorder
from audiomill.train.fit.processes import Worker
from audiomill.train.fit.state import States
from audiomill.train.fit.updating import Labelled, run_updates
from audiomill.train.unit_lm.sequences import Sequences

UNITS = "units"
"""Objective of language models over codes."""


@dataclass(frozen=True)
class Training:
    """Everything a worker needs: plain values, so that it travels. `label_rows`: the clips before those were dropped that cannot be
    learnt from; every worker makes its vocabulary of them. `objective` "units": rows are those of
    `audiomill.train.unit_lm.sequences`, and there is no model to start from."""

    config: OptimizationConfig
    folder: str
    model_path: str
    objective: str
    output: str
    label_rows: pa.Table
    train: pa.Table
    dev: pa.Table | None
    storage_options: dict[str, Any]
    quiet: bool
    place: str = ""

    def mirror(self) -> Mirror | None:
        """Where else it is kept: `place` is a URL."""
        return mirror_of(self.place, self.storage_options)

    def examples(self, table: pa.Table) -> Clips | Sequences:
        """What is learnt from, of some rows."""
        kind = Sequences if self.objective == UNITS else Clips
        return kind(Path(self.folder), table)


def load_learner(training: Training, device: str) -> Learner:
    """The model of a training, with new weights drawn from its seed."""
    config, path = training.config, Path(training.model_path)
    torch.manual_seed(config.seed)
    place = torch.device(device)
    if training.objective == UNITS:
        load = next(family.code_learner for family in families() if family.code_learner is not None)
        return load(Path(training.folder), config, place)
    assert isinstance(config, TrainConfig), "the other objectives are trained by finetune"
    family = family_of(path, settings_of(path), config.model)
    return objectives_of(family)[training.objective].load(
        path, config, Clips(Path(training.folder), training.label_rows).labelled_texts(config.language), place
    )


def launch(training: Training, learner: Learner, worker: Worker | None) -> None:
    """Trains in this process, or in several."""
    config = training.config
    asks_for_ray = config.ray_address is not None or bool(os.environ.get("RAY_ADDRESS"))
    if config.engine == "ray" or (config.engine == "auto" and asks_for_ray and worker is None):
        from audiomill.runs import on_ray

        on_ray.train(partial(_train_joined, training), config.workers, config.device, config.ray_address)
    elif worker is not None:
        train_on(training, None, worker)
    elif config.workers > 1:
        from audiomill.train.fit.processes import spawned

        spawned(train_on_a_worker, training, config.workers, config.device)
    else:
        train_on(training, learner, Worker(0, 1, torch.device(resolve_device(config.device))))


def _train_joined(training: Training) -> None:
    """What a worker of Ray Train does: its environment describes the group."""
    from audiomill.train.fit.processes import join_group

    with join_group(training.config.device) as worker:
        train_on(training, None, worker)


def train_on_a_worker(training: Training, worker: Worker) -> None:
    """What each of several processes does."""
    train_on(training, None, worker)


def train_on(training: Training, learner: Learner | None, worker: Worker) -> None:
    """Trains and, on the first worker, saves the checkpoint."""
    learner = learner or load_learner(training, str(worker.device))
    clips = training.examples(training.train)
    labelled = Labelled(clips, learner.labels(clips.labelled_texts(training.config.language), clips.num_samples))
    dev = None if training.dev is None else Clips(Path(training.folder), training.dev)
    output = Path(training.output)
    mirror = training.mirror()
    states = States(output / "state", worker.device, *([] if mirror is None else [mirror.push]))
    if not worker.is_first:
        run_updates(learner, labelled, dev, states, training.config, worker, lambda row: None)
        return
    console = Console(stderr=True, quiet=training.quiet)
    with Recorder(output, states.newest() or 0, console) as recorder:
        progress = run_updates(learner, labelled, dev, states, training.config, worker, recorder)
    temporary = output / "state" / "checkpoint"
    shutil.rmtree(temporary, ignore_errors=True)
    learner.model.eval()
    learner.save(temporary)
    shutil.rmtree(output / "checkpoint", ignore_errors=True)
    os.replace(temporary, output / "checkpoint")
    (output / "state" / "done.json").write_text(json.dumps(progress._asdict()))
