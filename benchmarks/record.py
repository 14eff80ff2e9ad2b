"""Keeps a figure with everything it depends on. Imports nothing but Python: GPU machines may have little else."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """What a figure depends on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    packages = {}
    for name in ("torch", "transformers", "ray", "faster-whisper", "pyarrow", "numpy"):
        try:
            packages[name] = version(name)
        except Exception:
            continue
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "unknown",
    )
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit,
        "python": platform.python_version(),
        "cpu": cpu,
        "packages": packages,
    }


def save(name: str, command: str, result: Any) -> None:
    """Writes benchmarks/results/NAME.json with what it depends on."""
    place = Path(__file__).parent / "results" / f"{name}.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({"command": command, **environment(), "result": result}, indent=1) + "\n")
    print(f"saved {place}")
