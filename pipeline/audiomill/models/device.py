"""What a device has: memory that is free, and the most that was used."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from audiomill.errors import ModelError

CGROUP = Path("/sys/fs/cgroup")
"""Of Linux: version 2 keeps a quota in `cpu.max`, version 1 in `cpu/cpu.cfs_quota_us`."""
NVIDIA_DRIVER, AMD_DRIVER = "libcuda.so.1", Path("/dev/kfd")
"""One of them is there wherever torch may find a GPU."""


def usable_cores() -> int:
    """Cores that this process may use: those it may run on, within the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(CGROUP))))


def _quota(group: Path) -> float:
    """Cores that a container may use up in a period; infinite without a limit."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    return int(quota) / int(period) if quota.isdigit() and int(period) > 0 else math.inf


def available_memory() -> int:
    """Bytes that nobody uses now: of the machine, or of the container where that has less."""
    return min(int(psutil.virtual_memory().available), _left_in(CGROUP, _own_group()))


def _own_group() -> str:
    """Path of this process's memory group below its mount; a container sees its own as the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    named = {kind: path for _, kind, path in (line.split(":", 2) for line in lines)}
    return named.get("memory", named.get("", "")).strip("/")


def _left_in(mount: Path, name: str) -> int:
    """Bytes below the limit of a memory group, its page cache not counted; very many without a limit."""
    for folder in (mount / name, mount / "memory" / name, mount, mount / "memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):
                most, now = int((folder / limit).read_text()), int((folder / used).read_text())
                rows = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
                cached = next((int(value) for key, value in rows if key in ("total_inactive_file", "inactive_file")), 0)
                return max(0, most - now + cached)
    return sys.maxsize


def resolve_device(device: str) -> str:
    """`auto` -> `cuda` if there is one, else `cpu`.

    Raises:
        ModelError: CUDA was asked for and is not there.
    """
    if device == "cpu" or (device == "auto" and not _has_driver()):
        return "cpu"
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(
            f"--device {device}: torch {torch.__version__} sees no CUDA device; use --device cpu or install a CUDA build of torch"
        )
    return device


def _has_driver() -> bool:
    """Whether a GPU's driver may be there: where there is none, torch, which takes seconds to import, need not be asked."""
    if sys.platform != "linux" or AMD_DRIVER.exists():
        return True
    try:
        ctypes.CDLL(NVIDIA_DRIVER)
    except OSError:
        return False
    return True


def device_name(device: str) -> str:
    """For people: the GPU's name, or the number of CPU cores."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device if ":" in device else 0)
    return f"{usable_cores()} CPU cores"


def num_devices(device: str) -> int:
    """GPUs of this machine; 1 for one that is named, and for the CPU its cores."""
    if device.startswith("cuda"):
        import torch

        return 1 if ":" in device else max(1, torch.cuda.device_count())
    return usable_cores()


def device_memory(device: str) -> int:
    """Bytes that nobody uses now."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device if ":" in device else 0)[0])
    return available_memory()


def peak_meter(device: str) -> Callable[[], int]:
    """Starts to watch a GPU; calling it gives the most that was allocated since, above what was there before."""
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    return lambda: int(torch.cuda.max_memory_allocated(device) - before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes with one thread: for sums whose last bits depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
