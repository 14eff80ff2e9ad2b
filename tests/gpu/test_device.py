"""Cores that a process may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from audiomill.models import device
from audiomill.models.precision import capabilities_of_torch, cpu_features, flagged


def write_group(folder: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a container's control group, in place of this machine's."""
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    monkeypatch.setattr(device, "CGROUP", folder)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_quota_counts_as_cores(
    files: dict[str, str], cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_group(tmp_path, files, monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert device.usable_cores() == (cores or 64)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 5\ninactive_file 100\n"}, 400),
        ({"memory.max": "max\n", "memory.current": "700\n", "memory.stat": ""}, None),
        (
            {
                "memory/memory.limit_in_bytes": "1000\n",
                "memory/memory.usage_in_bytes": "1200\n",
                "memory/memory.stat": "total_inactive_file 0\n",
            },
            0,
        ),
        ({}, None),
    ],
)
def test_a_containers_limit_counts_as_memory(
    files: dict[str, str], left: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_group(tmp_path, files, monkeypatch)
    free = device.available_memory()
    assert free == left if left is not None else free > 2**20


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f avx512_vnni avx512_bf16", {"avx2", "vnni", "bf16"}),
        ("fpu avx2 avx_vnni", {"avx2", "vnni"}),
        ("fpu avx2", {"avx2"}),
        ("fpu sse4_2", set()),
        (None, None),
    ],
)
def test_the_processor_is_known_without_torch(flags: str | None, expected: set[str] | None) -> None:
    cpuinfo = "processor : 0\n" + (f"flags\t\t: {flags}\n" if flags else "Features : fp asimd\n")
    assert flagged(cpuinfo) == expected


def test_this_processor_is_what_torch_says_it_is() -> None:
    found = flagged(Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    assert found in (None, capabilities_of_torch()) and cpu_features() <= capabilities_of_torch()


def test_without_a_driver_the_device_is_known_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "NVIDIA_DRIVER", "libnothing.so")
    monkeypatch.setattr(device, "AMD_DRIVER", Path("/none"))
    monkeypatch.setattr(device.sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would fail
    assert device.resolve_device("auto") == "cpu"
