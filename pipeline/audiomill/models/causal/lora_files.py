"""LoRA weights beside a checkpoint of transformers, added to the weights that they are for (arXiv:2106.09685).

transformers reads them through peft, of a version that fits its own, and goes on without them where there is none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open

from audiomill.errors import ModelError
from audiomill.models.checkpoint import settings_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LAYER = re.compile(r"(layers\.\d+\..+)\.lora_A(?:\.\w+)?\.weight$")
"""Names differ before the layers from version to version."""


@contextmanager
def without_lora_files(folder: Path) -> Iterator[Path]:
    """A folder that holds the same files but those of LoRA, by links.

    Raises:
        ModelError: config.json tells of LoRA weights, and they are not there.
    """
    has_files = (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()
    if settings_of(folder).get("has_lora_adapter") and not has_files:
        raise ModelError(
            f"{folder}: its LoRA weights are missing, without which it does not transcribe; expected {CONFIG} and {WEIGHTS} beside config.json"
        )
    if not has_files:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        for path in folder.iterdir():
            if not path.name.startswith("adapter_"):
                (Path(temporary) / path.name).symlink_to(path.resolve())
        yield Path(temporary)


@torch.no_grad()
def add_lora(folder: Path, body: Any) -> None:
    """Adds LoRA weights, where there are any, to the layers of a language model.

    Args:
        folder: of the checkpoint.
        body: the language model without its head.

    Raises:
        ModelError: they do not fit.
    """
    if not (folder / WEIGHTS).is_file():
        return
    values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    rank, alpha = int(values["r"]), float(values["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)
    weights = dict(body.named_parameters())
    count = 0
    with safe_open(folder / WEIGHTS, "pt") as file:
        for name in file.keys():  # noqa: SIM118  (not a dict)
            if (match := LAYER.search(name)) is None:
                continue
            base_weight = weights.get(f"{match.group(1)}.weight")
            update = file.get_tensor(name.replace("lora_A", "lora_B")).float() @ file.get_tensor(name).float() * scale
            if base_weight is None or base_weight.shape != update.shape:
                raise ModelError(
                    f"{folder / WEIGHTS}: {name} fits no layer of the language model; expected those of the same checkpoint"
                )
            base_weight += update.to(base_weight)
            count += 1
    if not count:
        raise ModelError(f"{folder / WEIGHTS}: no LoRA weights of layers in it; expected names with lora_A and lora_B")
