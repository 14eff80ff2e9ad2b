"""A linear probe over a weighted sum of hidden states: which layers tell the labels, and how well.

N samples, L layers, D width, C classes. Source: the weighted sum of SUPERB (Yang et al. 2021, arXiv:2105.01051), here with
each layer brought to the same size, so that a weight says how much of it is heard.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

MAX_STEPS = 60


class Probe(NamedTuple):
    """`weights_L`: of raw hidden states, as `embed --layer-weights` takes them; their sum is 1. `shares_L`: of layers brought to
    the same size."""

    weights_L: NDArray[np.float64]
    shares_L: NDArray[np.float64]
    matrix_DC: torch.Tensor
    bias_C: torch.Tensor

    def classes(self, features_NLD: NDArray[np.float32]) -> NDArray[np.int64]:
        """The most likely class of each sample."""
        mixed_ND = np.tensordot(self.weights_L, features_NLD, axes=(0, 1)).astype(np.float32)
        logits_NC = torch.from_numpy(mixed_ND) @ self.matrix_DC + self.bias_C
        return logits_NC.argmax(1).numpy()


def fitted(
    features_NLD: NDArray[np.float32], classes_N: NDArray[np.int64], num_classes: int, l2: float, learns_weights: bool
) -> Probe:
    """Fits all together by L-BFGS, in float32 from zeros: the same input gives the same probe.

    Args:
        features_NLD: a vector a layer.
        classes_N: from 0.
        num_classes: C.
        l2: weight of the squared matrix in the loss.
        learns_weights: or else all layers count alike.
    """
    mean_LD = features_NLD.mean(axis=0)
    size_L = np.sqrt(np.square(features_NLD - mean_LD).mean(axis=(0, 2))) + 1e-12
    scaled_NLD = torch.from_numpy((features_NLD - mean_LD) / size_L[None, :, None])
    targets_N = torch.from_numpy(classes_N)
    _, num_layers, width = scaled_NLD.shape
    logits_L = torch.zeros(num_layers, requires_grad=learns_weights)
    matrix_DC = torch.zeros(width, num_classes, requires_grad=True)
    bias_C = torch.zeros(num_classes, requires_grad=True)
    learned = [matrix_DC, bias_C] + ([logits_L] if learns_weights else [])
    optimizer = torch.optim.LBFGS(learned, max_iter=MAX_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        mixed_ND = torch.einsum("nld,l->nd", scaled_NLD, logits_L.softmax(0))
        value = torch.nn.functional.cross_entropy(mixed_ND @ matrix_DC + bias_C, targets_N)
        value = value + l2 * matrix_DC.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    shares_L = logits_L.detach().softmax(0).double().numpy()
    raw_L = shares_L / size_L
    weights_L, scale = raw_L / raw_L.sum(), float(raw_L.sum())
    centre_D = torch.from_numpy(np.tensordot(raw_L, mean_LD, axes=(0, 0)).astype(np.float32))
    matrix, bias = matrix_DC.detach(), bias_C.detach()
    return Probe(weights_L, shares_L, scale * matrix, bias - centre_D @ matrix)
