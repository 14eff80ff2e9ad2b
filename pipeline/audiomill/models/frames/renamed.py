"""Folders that an earlier version trained: it wrote the name of a wrapper into those of two tensors."""

from __future__ import annotations

import logging
import shutil
import tempfile
from functools import cache
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

WRAPPED = "._norm."
_WEIGHTS = "model.safetensors"
_kept: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the process ends."""


@cache
def with_real_names(folder: Path) -> Path:
    """The folder, or a copy of it in which every tensor has its real name; says so, once."""
    path = folder / _WEIGHTS
    if not path.exists():
        return folder
    with safe_open(path, framework="pt") as handle:
        if not any(WRAPPED in name for name in handle.keys()):  # noqa: SIM118  (no mapping)
            return folder
    logging.getLogger("audiomill").warning(
        "%s: trained by an earlier version, which named two tensors wrongly; they are renamed as it is loaded", folder
    )
    _kept.append(tempfile.TemporaryDirectory(prefix="audiomill-"))
    copy = Path(_kept[-1].name)
    for each in folder.iterdir():
        if each.is_file() and each.name != _WEIGHTS:
            shutil.copyfile(each, copy / each.name)
    weights = {name.replace(WRAPPED, "."): value for name, value in load_file(path).items()}
    save_file(weights, copy / _WEIGHTS, {"format": "pt"})
    return copy
