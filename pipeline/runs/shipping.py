"""This program's code as one folder, to be sent along to a cluster."""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path


def code_to_ship() -> Path:
    """A copy under the import name: in a checkout the folders have other names."""
    target = Path(tempfile.mkdtemp(prefix="audiomill-")) / "audiomill"
    for name, place in (("audiomill", target), ("audiomill.jobs", target / "jobs")):
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None, "installed"
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(spec.origin).parent, place, ignore=leave_out, dirs_exist_ok=True)
    return target
