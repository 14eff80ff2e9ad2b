"""A checkpoint of transformers with every weight that it needs, or one line that says what is missing."""

from __future__ import annotations

import logging
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from audiomill.errors import ModelError
from audiomill.models.finite import check_weights

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


def loaded_whole(
    kind: Any, folder: Path, dtype: torch.dtype, may_be_missing: tuple[str, ...] = (), trust_remote_code: bool = False
) -> Any:
    """A model from a local folder.

    Args:
        kind: an auto class of transformers.
        folder: of the checkpoint.
        dtype: of the weights, but of those that transformers keeps in float32.
        may_be_missing: parts of the names of tensors that checkpoints lack without harm.
        trust_remote_code: see `--trust-remote-code`.

    Raises:
        ModelError: it cannot be loaded, or tensors are missing or hold no numbers.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    options = {"dtype": dtype, "trust_remote_code": trust_remote_code, "output_loading_info": True}
    try:
        model, loading = kind.from_pretrained(with_real_names(folder), **options)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder}: cannot be loaded ({reason}); expected config.json and weights that fit it"
        ) from error
    missing = sorted(name for name in loading["missing_keys"] if not any(part in name for part in may_be_missing))
    if missing:
        raise ModelError(
            f"{folder}: the weights lack {len(missing)} tensors, the first is {missing[0]}; expected a whole checkpoint"
        )
    check_weights(model, folder)
    return model
