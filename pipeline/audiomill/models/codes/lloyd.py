"""k-means: k-means++ start, Lloyd steps in chunks on the device, and what a fit is worth.

N frames, D width, K clusters.
Sources: Arthur & Vassilvitskii 2007 (k-means++, greedy as in scikit-learn); Hubert & Arabie 1985 (adjusted Rand index).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK_FRAMES = 16_384
START_FRAMES_PER_CLUSTER = 32
"""k-means++ looks at this many frames a cluster, drawn at random."""
TOLERANCE = 1e-4
"""Lloyd ends when the centres move less than this share of the data's variance (scikit-learn's rule)."""
TINY_SHARE = 0.05
"""A cluster with less than this share of an average one's frames is called tiny."""
AGREEMENT_FRAMES = 100_000


class Fit(NamedTuple):
    """`inertia`: mean squared distance of a frame to its centre."""

    centroids_KD: NDArray[np.float32]
    labels_N: NDArray[np.int64]
    inertia: float
    num_steps: int
    has_converged: bool


_Told = Callable[[int, int, float], None]
"""Called with the fit's number, the step and the inertia."""


def best_fit(
    frames_ND: NDArray[np.float32],
    num_clusters: int,
    seeds: Sequence[int],
    max_steps: int,
    device: str,
    on_step: _Told = lambda number, step, inertia: None,
) -> tuple[Fit, dict[str, Any]]:
    """Fits from each seed; the one with the lowest inertia, and a report.

    Returns:
        The fit, and inertia, empty and tiny clusters, perplexity of the usage, and the mean adjusted Rand index
        between the fits (1: the same clusters whatever the start; None for one seed).
    """
    frames = torch.from_numpy(frames_ND).to(device)
    mean_D = frames.mean(0)
    centred_ND = frames - mean_D
    fits = []
    for number, seed in enumerate(seeds):
        start_KD = plus_plus(centred_ND, num_clusters, np.random.default_rng(seed))
        fits.append(lloyd(centred_ND, start_KD, max_steps, on_step=partial(on_step, number)))
    best = min(fits, key=lambda fit: fit.inertia)
    pairs = [
        adjusted_rand(a.labels_N[:AGREEMENT_FRAMES], b.labels_N[:AGREEMENT_FRAMES]) for a, b in combinations(fits, 2)
    ]
    counts = np.bincount(best.labels_N, minlength=num_clusters)
    share = counts[counts > 0] / counts.sum()
    report = {
        "inertia": best.inertia,
        "inertia_by_seed": [fit.inertia for fit in fits],
        "variance": float(centred_ND.square().sum(-1).mean()),
        "num_steps": best.num_steps,
        "has_converged": best.has_converged,
        "num_empty": int((counts == 0).sum()),
        "num_tiny": int((counts < TINY_SHARE * len(best.labels_N) / num_clusters).sum()),
        "perplexity": float(np.exp(-(share * np.log(share)).sum())),
        "adjusted_rand": float(np.mean(pairs)) if pairs else None,
    }
    return best._replace(centroids_KD=best.centroids_KD + mean_D.cpu().numpy()), report


def plus_plus(frames_ND: Tensor, num_clusters: int, random: np.random.Generator) -> Tensor:
    """Centres far from each other: each next one is the best of a few drawn by squared distance to the nearest so far."""
    limit = START_FRAMES_PER_CLUSTER * num_clusters
    if len(frames_ND) > limit:
        drawn = np.sort(random.choice(len(frames_ND), limit, replace=False))
        frames_ND = frames_ND[torch.from_numpy(drawn).to(frames_ND.device)]
    num_trials = 2 + int(math.log(num_clusters))
    chosen = [int(random.integers(len(frames_ND)))]
    nearest_N = _distances(frames_ND, frames_ND[chosen])[:, 0]
    for _ in range(num_clusters - 1):
        edges = nearest_N.double().cumsum(0)
        targets = torch.from_numpy(random.random(num_trials)).to(edges) * edges[-1]
        trials = torch.searchsorted(edges, targets).clamp(max=len(frames_ND) - 1)
        candidates_NT = torch.minimum(_distances(frames_ND, frames_ND[trials]), nearest_N[:, None])
        best = int(candidates_NT.sum(0).argmin())
        nearest_N = candidates_NT[:, best]
        chosen.append(int(trials[best]))
    return frames_ND[chosen].clone()


def lloyd(
    frames_ND: Tensor,
    start_KD: Tensor,
    max_steps: int,
    tolerance: float = TOLERANCE,
    on_step: Callable[[int, float], None] = lambda step, inertia: None,
) -> Fit:
    """Lloyd's algorithm. An empty cluster moves to the frame that is farthest from its centre.

    Args:
        frames_ND: the data, its mean near zero (for the precision of distances).
        start_KD: centres to start from.
        max_steps: at most.
        tolerance: see `TOLERANCE`.
        on_step: called after each step.
    """
    centroids_KD = start_KD
    limit = tolerance * float(frames_ND.var(0, correction=0).mean())
    labels_N, sums_KD, distance_N = _assign(frames_ND, centroids_KD)
    steps, has_converged = 0, False
    while steps < max_steps and not has_converged:
        steps += 1
        counts_K = torch.bincount(labels_N, minlength=len(centroids_KD))
        moved_KD = _means(frames_ND, labels_N, sums_KD, counts_K, distance_N)
        shift = float((moved_KD - centroids_KD).square().sum())
        before_N, centroids_KD = labels_N, moved_KD
        labels_N, sums_KD, distance_N = _assign(frames_ND, centroids_KD)
        on_step(steps, float(distance_N.double().mean()))
        has_converged = shift <= limit or bool((labels_N == before_N).all())
    inertia = float(distance_N.double().mean())
    return Fit(centroids_KD.cpu().numpy(), labels_N.cpu().numpy(), inertia, steps, has_converged)


def _means(frames_ND: Tensor, labels_N: Tensor, sums_KD: Tensor, counts_K: Tensor, distance_N: Tensor) -> Tensor:
    empty = torch.nonzero(counts_K == 0)[:, 0]
    if len(empty):
        sums_KD, counts_K = sums_KD.clone(), counts_K.clone()
        for cluster, frame in zip(empty.tolist(), distance_N.topk(len(empty)).indices.tolist(), strict=True):
            old = int(labels_N[frame])
            sums_KD[old] -= frames_ND[frame]
            counts_K[old] -= 1
            sums_KD[cluster], counts_K[cluster] = frames_ND[frame], 1
    return sums_KD / counts_K.clamp(min=1)[:, None]


def _assign(frames_ND: Tensor, centroids_KD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest centre of every frame, sums of the frames of each centre, squared distances."""
    labels, distances = [], []
    sums_KD = torch.zeros_like(centroids_KD)
    for chunk_ND in torch.split(frames_ND, _CHUNK_FRAMES):
        result = _distances(chunk_ND, centroids_KD).min(-1)
        labels.append(result.indices)
        distances.append(result.values)
        chosen_NK = torch.zeros(len(chunk_ND), len(centroids_KD), device=chunk_ND.device)
        chosen_NK.scatter_(1, result.indices[:, None], 1.0)
        sums_KD += chosen_NK.T @ chunk_ND  # a product, because adding by index is not deterministic on CUDA
    return torch.cat(labels), sums_KD, torch.cat(distances)


def _distances(frames_ND: Tensor, centroids_KD: Tensor) -> Tensor:
    products = torch.addmm(centroids_KD.square().sum(-1), frames_ND, centroids_KD.T, alpha=-2)
    return (products + frames_ND.square().sum(-1, keepdim=True)).clamp(min=0)


def adjusted_rand(a_N: NDArray[np.int64], b_N: NDArray[np.int64]) -> float:
    """Agreement of two clusterings of the same frames, corrected for chance: 1 for equal ones, about 0 for random ones."""

    def num_pairs(counts: NDArray[np.int64]) -> float:
        return float((counts * (counts - 1)).sum()) / 2

    joint = num_pairs(np.unique(a_N * (int(b_N.max()) + 1) + b_N, return_counts=True)[1])
    in_a, in_b = (num_pairs(np.bincount(labels)) for labels in (a_N, b_N))
    expected = in_a * in_b / (len(a_N) * (len(a_N) - 1) / 2)
    most = (in_a + in_b) / 2
    return 1.0 if most == expected else (joint - expected) / (most - expected)
