"""A settled task -> its model on its device, ready to use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiomill.config.stages import ModelConfig
from audiomill.models.base import CONV, CodesRequest, RequestedOutputs, SpeechModel
from audiomill.models.checkpoint import Checkpoint, find_checkpoint, shape_of
from audiomill.models.device import resolve_device
from audiomill.models.family import Loading
from audiomill.models.precision import check_precision, cpu_features
from audiomill.models.task import LoadedTask, TaskSpec

if TYPE_CHECKING:
    import torch

    from audiomill.models.vectors.readout import Quantizer


def import_libraries() -> None:
    """What every checkpoint needs, and takes seconds to import."""
    import torch  # noqa: F401


def dtype_of(precision: str) -> torch.dtype:
    """torch's name of a number format."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def plan_model(
    checkpoint: Checkpoint, model: ModelConfig, requested: RequestedOutputs, batch_samples: int = 0, label: str = ""
) -> TaskSpec:
    """A model that is asked for, settled: plain values that travel to workers.

    Args:
        checkpoint: of the model.
        model: device, number format and memory; the name is that of the checkpoint.
        requested: what it shall give.
        batch_samples: padded audio a batch.
        label: its name in the tables; the checkpoint's by default.
    """
    shape = shape_of(checkpoint)
    return TaskSpec(
        label=label or checkpoint.name,
        model=dataclasses.replace(model, model=checkpoint.name),
        requested=requested,
        hop=shape.step,
        batch_samples=batch_samples,
        text_hop=shape.text_hop,
        hops=shape.hops,
        form=shape.form,
    )


def load_speech_model(
    model: ModelConfig, requested: RequestedOutputs, storage_options: dict[str, Any] | None = None
) -> SpeechModel:
    """A model in one call, ready to use.

    Args:
        model: its name, device and number format.
        requested: what it shall give.
        storage_options: fsspec options.

    Raises:
        ModelError: the checkpoint cannot be found or loaded.
    """
    options = storage_options or {}
    return load_model(plan_model(find_checkpoint(model, options), model, requested), options)


def load_tasks(
    tasks: tuple[TaskSpec, ...], storage_options: dict[str, Any], threads: int | None = None
) -> list[LoadedTask]:
    """Every model of a run.

    Args:
        tasks: what is wanted of each.
        storage_options: fsspec options.
        threads: that compute on a CPU; None: as torch chooses.
    """
    return [_load_task(task, storage_options, threads) for task in tasks]


def _load_task(task: TaskSpec, storage_options: dict[str, Any], threads: int | None) -> LoadedTask:
    second = None if task.second is None else _load_task(task.second, storage_options, threads)
    return LoadedTask(task, load_model(task, storage_options, threads), second=second)


def load_model(task: TaskSpec, storage_options: dict[str, Any], threads: int | None = None) -> SpeechModel:
    """The model of one task, with the quantizers that it needs.

    Raises:
        ModelError: the checkpoint cannot be loaded, or this processor lacks the run's number format.
    """
    checkpoint = find_checkpoint(task.model, storage_options)
    if checkpoint.family.scheme is not None:
        nowhere: Any = None  # without weights there is nothing to put on a device
        quantizers = _quantizers(task, checkpoint, nowhere, storage_options)
        return checkpoint.family.load(Loading(Path(checkpoint.path), task, nowhere, quantizers, storage_options))
    import_libraries()
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    device = torch.device(resolve_device(task.model.device))
    check_precision(task.model.precision, device.type, cpu_features())
    quantizers = _quantizers(task, checkpoint, device, storage_options)
    return checkpoint.family.load(Loading(Path(checkpoint.path), task, device, quantizers, storage_options))


def _quantizers(
    task: TaskSpec, checkpoint: Checkpoint, device: torch.device | None, storage_options: dict[str, Any]
) -> dict[str, Quantizer]:
    """Quantizers of hidden states that the codes of a task need, by name; on the CPU where a model has no device."""
    wants = [want for want in task.requested.codes if want.layer is not None]
    if not wants:
        return {}
    import torch

    place = torch.device("cpu") if device is None else device
    return {want.name: _quantizer(want, checkpoint, place, storage_options) for want in wants}


def _quantizer(
    want: CodesRequest, checkpoint: Checkpoint, device: torch.device, storage_options: dict[str, Any]
) -> Quantizer:
    from audiomill.models.codes.codebooks import NearestCentroid, gumbel_of, read_codebook
    from audiomill.models.locate import local_path
    from audiomill.storage.fs import Place

    if want.layer == CONV:
        folder = local_path(want.source, storage_options) if want.source else Path(checkpoint.path)
        return gumbel_of(folder, want.num_codebooks, device)
    return NearestCentroid(read_codebook(Place(want.source, storage_options), want.layer).centroids_VD, device)
