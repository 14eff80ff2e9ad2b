"""A checkpoint of transformers with every weight that it needs, or one line that says what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from audiomill.errors import ModelError
from audiomill.models.finite import check_weights
from audiomill.models.frames.renamed import with_real_names


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
