"""Any causal language model of Hugging Face as a judge of texts. B texts, L tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.errors import ModelError

BATCH_TOKENS = 4096


class Rescorer:
    """Log-probability of texts under a causal language model.

    Args:
        model: hub id, folder or URL.
        options: for fsspec.
        device: cpu, cuda or cuda:N.

    Raises:
        ModelError: not a causal language model.
    """

    def __init__(self, model: str, options: dict[str, Any], device: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from audiomill.models.locate import local_path

        folder = local_path(model, options)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._model = AutoModelForCausalLM.from_pretrained(folder).to(device).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"--rescore-model {model}: expected a causal language model with its tokenizer, got: {error}"
            ) from error
        start = self._tokenizer.bos_token_id
        self._start = start if start is not None else self._tokenizer.eos_token_id
        if self._start is None:
            raise ModelError(f"--rescore-model {model}: its tokenizer has no token for a text's start or end")

    def score(self, texts: Sequence[str]) -> list[float]:
        """Natural log-probability of each text, its end not included."""
        ids = [[self._start, *self._tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
        order = sorted(range(len(ids)), key=lambda at: -len(ids[at]))
        result = np.zeros(len(ids))
        while order:
            count = max(1, BATCH_TOKENS // len(ids[order[0]]))
            chosen, order = order[:count], order[count:]
            result[chosen] = self._scored([ids[at] for at in chosen])
        return [float(value) for value in result]

    def _scored(self, ids: list[list[int]]) -> NDArray[np.float64]:
        import torch

        longest = max(map(len, ids))
        tokens_BL = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=self._model.device)
        mask_BL = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=self._model.device)
        with torch.inference_mode():
            logits_BLV = self._model(input_ids=tokens_BL, attention_mask=mask_BL).logits[:, :-1].float()
        logprobs_BL = logits_BLV.log_softmax(-1).gather(-1, tokens_BL[:, 1:, None])[..., 0]
        total: NDArray[np.float64] = (logprobs_BL * mask_BL[:, 1:]).double().sum(-1).cpu().numpy()
        return total
