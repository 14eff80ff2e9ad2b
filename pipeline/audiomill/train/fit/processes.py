"""Several processes that train together: those that torchrun started, or our own."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessException, spawn

from audiomill.errors import RunError, UsageError
from audiomill.models.device import resolve_device, usable_cores


@dataclass(frozen=True)
class Worker:
    """One of `size` processes that train together; the one of rank 0 evaluates, saves and speaks."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0


TIMEOUT = datetime.timedelta(minutes=30)


@contextlib.contextmanager
def join_group(device: str) -> Iterator[Worker]:
    """This process as one of a group that the environment describes (torchrun, Ray Train)."""
    local_device = resolve_device(device)
    local = int(os.environ.get("LOCAL_RANK", 0))
    place = torch.device(f"cuda:{local}" if local_device.startswith("cuda") else local_device)
    started = not dist.is_initialized()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if started:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Worker(dist.get_rank(), dist.get_world_size(), place)
    finally:
        if started:
            dist.destroy_process_group()


@contextlib.contextmanager
def first_alone(worker: Worker | None) -> Iterator[None]:
    """The first worker does what is inside before the others do; None: there are no others. An error of the first one
    ends it, and whoever started the others ends them."""
    if worker is not None and not worker.is_first:
        dist.barrier()
    yield
    if worker is not None and worker.is_first:
        dist.barrier()


def spawned(function: Callable[[Any, Worker], None], training: Any, workers: int, device: str) -> None:
    """Runs `function` in new processes on this machine.

    Raises:
        UsageError: fewer GPUs than workers.
        RunError: one of them failed; the message is its last line.
    """
    if resolve_device(device).startswith("cuda") and torch.cuda.device_count() < workers:
        raise UsageError(f"--workers {workers}: this machine has {torch.cuda.device_count()} GPUs; use as many at most")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = max(1, usable_cores() // workers)
    try:
        spawn(_joining, (function, training, workers, device, port, threads), nprocs=workers)  # type: ignore[no-untyped-call]
    except ProcessException as error:
        raise RunError(str(error).strip().splitlines()[-1]) from error


def _joining(
    rank: int,
    function: Callable[[Any, Worker], None],
    training: Any,
    workers: int,
    device: str,
    port: int,
    threads: int,
) -> None:
    """One process of a group."""
    torch.set_num_threads(threads)
    results = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": workers, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in results.items()})
    with join_group(device) as worker:
        function(training, worker)
