"""What products are computed in, and one seed from several numbers."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch


def mixed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """What products are computed in; None for float32."""
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(precision: torch.dtype | None, device: torch.device) -> Any:
    return contextlib.nullcontext() if precision is None else torch.autocast(device.type, dtype=precision)
