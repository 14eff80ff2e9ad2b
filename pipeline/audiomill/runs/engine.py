"""Which engine a job runs on, and that engine with its session open."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from audiomill.config.jobs import JobConfig
from audiomill.config.run import EngineConfig
from audiomill.errors import UsageError
from audiomill.models.device import num_devices, resolve_device
from audiomill.models.family import has_files
from audiomill.models.precision import cpu_features
from audiomill.stages.model_processes import start_ahead
from audiomill.storage.urls import protocol


class Opened(NamedTuple):
    """An engine ready for use. `features`: that every processor has, see `audiomill.models.precision`."""

    module: ModuleType
    device: str
    features: frozenset[str]


def chosen_engine(engine: EngineConfig, device: str) -> tuple[str, str]:
    """`auto` -> the engine and why, for one line: Ray where it is asked for, else this process.

    Args:
        engine: as configured.
        device: as configured.
    """
    if engine.engine != "auto":
        return engine.engine, "as asked"
    if engine.ray_address is not None or os.environ.get("RAY_ADDRESS"):
        return "ray", "an address of a cluster was given"
    if engine.num_actors > 1:
        return "ray", f"--actors {engine.num_actors}"
    if device != "cpu" and resolve_device(device) == "cuda" and num_devices("cuda") > 1:
        return "ray", f"{num_devices('cuda')} GPUs"
    return "local", "one machine; --engine ray or --ray-address for a cluster"


def with_engine(config: JobConfig) -> JobConfig:
    """The job with its engine settled."""
    device = config.tasks[0].model.device
    name, _ = chosen_engine(config.engine, device)
    actors = config.engine.actors
    if actors is None:
        actors = max(1, int(_gpus_here(config.engine, device) / max(config.engine.gpus_per_actor or 1.0, 1e-3)))
        actors = actors if name == "ray" else 1
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, engine=name, actors=actors))


def _gpus_here(engine: EngineConfig, device: str) -> int:
    """Of this machine, where the models run on them; a cluster elsewhere has its own."""
    is_here = engine.ray_address in (None, "local") and not os.environ.get("RAY_ADDRESS")
    return num_devices("cuda") if is_here and device != "cpu" and resolve_device(device) == "cuda" else 1


def engine_line(config: JobConfig) -> str:
    """Which engine was chosen, and why."""
    name, why = chosen_engine(config.engine, config.tasks[0].model.device)
    return f"engine: {name} ({why})"


def check_places(config: JobConfig) -> None:
    """Raises UsageError for places that the engine cannot share."""
    if config.engine.array_task is not None and (config.output.overwrite or config.output.retry_rejected):
        raise UsageError(
            "--array-task: --overwrite and --retry-rejected touch every shard's parts; run them once without it"
        )
    in_memory = [url for url in (*config.inputs, config.output.output) if protocol(url) == "memory"]
    if in_memory and config.engine.engine == "ray":
        raise UsageError(f"{in_memory[0]}: memory:// lives in one process and Ray has many; use --engine local")


@contextlib.contextmanager
def open_engine(config: JobConfig) -> Iterator[Opened]:
    """The engine with its session open."""
    wanted = config.tasks[0].model.device
    if config.engine.engine == "local":
        from audiomill.runs import local

        if any(has_files(task.model.model) for task in config.tasks):
            start_ahead(config.output.verbose)
        yield Opened(local, resolve_device(wanted), cpu_features())
        return
    from audiomill.runs import on_ray

    is_elsewhere = config.engine.ray_address is not None
    device = wanted if is_elsewhere else resolve_device(wanted)
    with on_ray.session(config.engine, config.output.verbose):
        chosen = ("cuda" if on_ray.cluster_has_gpus() else "cpu") if device == "auto" else device
        yield Opened(on_ray, chosen, on_ray.features_of_nodes())
