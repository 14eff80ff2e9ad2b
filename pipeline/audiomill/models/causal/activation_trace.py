"""Activations of one segment on its way through a speech LLM, for pictures.

F frames, D width, P prefix, N tokens, K choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiomill.models.seq2seq.decoder_weights import DecoderWeights
from audiomill.models.seq2seq.kv_cache import KVCache


class Stage(NamedTuple):
    """`array_DF`: one vector a frame; `rate_hz`: frames a second."""

    name: str
    array_DF: NDArray[np.float32]
    rate_hz: float
    meaning: str


class Choices(NamedTuple):
    """What the language model would have written at each step. `texts`: of each token its choices, the likeliest first."""

    probabilities_KN: NDArray[np.float32]
    texts: tuple[tuple[str, ...], ...]


class ActivationTrace(NamedTuple):
    """From an encoder's frames to tokens."""

    stages: tuple[Stage, ...]
    choices: Choices


@torch.inference_mode()
def first_choices(
    weights: DecoderWeights,
    prefix_PD: Tensor,
    tokens: Sequence[int],
    num_choices: int,
    text_of: Callable[[int], str],
) -> Choices:
    """The likeliest tokens at each step of a text, the end included.

    Args:
        weights: of the language model.
        prefix_PD: what the text begins with.
        tokens: of the text.
        num_choices: K.
        text_of: a token, for people.
    """
    state = KVCache(weights, 1, len(prefix_PD) + len(tokens) + 1)
    logits = [weights.logits(state.admit_prefixes(prefix_PD[None])[:, -1:])[0, 0]]
    for token in tokens:
        logits.append(weights.logits(state.step(torch.tensor([token], device=prefix_PD.device)))[0, 0])
    best = torch.stack(logits).softmax(-1).topk(min(num_choices, len(logits[0])), dim=-1)
    texts = tuple(tuple(text_of(token) for token in row) for row in best.indices.tolist())
    return Choices(best.values.T.cpu().numpy(), texts)
