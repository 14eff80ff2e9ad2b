"""A settled task -> its model on its device, ready to use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiomill.models.base import CONV, CodesRequest, SpeechModel
from audiomill.models.checkpoint import Checkpoint, find_checkpoint
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
