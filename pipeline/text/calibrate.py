"""Signs of doubt -> the word error rate to expect of a text, learnt from labelled audio.

A logistic model on monotone features with a ridge, so that few labels do no harm. N texts, D features.
Source of the method: Platt 1999; iteratively reweighted least squares as in McCullagh and Nelder 1989.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RIDGE = 1.0
NUM_STEPS = 50
NUM_FOLDS = 5
NUM_BINS = 10
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """`weights_D` of standardised features, the first is a constant."""

    mean_D: Vector
    scale_D: Vector
    weights_D: Vector

    def expected_wer(self, features_ND: Vector) -> Vector:
        """Between 0 and 1, of each text."""
        standard = (features_ND - self.mean_D) / self.scale_D
        found: Vector = _sigmoid(np.column_stack([np.ones(len(standard)), standard]) @ self.weights_D)
        return found


def fit(features_ND: Vector, wer_N: Vector) -> Calibration:
    """A calibration from texts with known errors.

    Args:
        features_ND: signs of doubt, larger for more of it.
        wer_N: word error rates, at most 1 counts.
    """
    mean_D, scale_D = features_ND.mean(0), np.maximum(features_ND.std(0), 1e-6)
    x = np.column_stack([np.ones(len(features_ND)), (features_ND - mean_D) / scale_D])
    y = np.clip(wer_N, 0, 1)
    weights = np.zeros(x.shape[1])
    ridge = np.diag([1e-6, *[RIDGE] * features_ND.shape[1]])
    for _ in range(NUM_STEPS):
        p = _sigmoid(x @ weights)
        curvature = x.T @ (x * np.maximum(p * (1 - p), 1e-6)[:, None]) + ridge
        step = np.linalg.solve(curvature, x.T @ (y - p) - ridge @ weights)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(mean_D, scale_D, weights)


def cross_fitted(features_ND: Vector, wer_N: Vector) -> Vector:
    """What is expected of each text by calibrations that did not see it: for honest figures."""
    folds = np.arange(len(wer_N)) % NUM_FOLDS
    found = np.zeros(len(wer_N))
    for fold in range(NUM_FOLDS):
        own = folds == fold
        if own.any() and (~own).any():
            found[own] = fit(features_ND[~own], wer_N[~own]).expected_wer(features_ND[own])
    return found


def reliability(expected_N: Vector, wer_N: Vector) -> tuple[list[tuple[float, float, int]], float]:
    """Mean expectation, mean truth and count of ten bins of equal size, and the expected calibration error."""
    bins = []
    total = 0.0
    for rows in np.array_split(np.argsort(expected_N, kind="stable"), NUM_BINS):
        if len(rows):
            said, true = float(expected_N[rows].mean()), float(np.clip(wer_N[rows], 0, 1).mean())
            bins.append((said, true, len(rows)))
            total += len(rows) * abs(said - true)
    return bins, total / max(1, len(expected_N))


def log_odds(shares: Sequence[float] | Vector) -> Vector:
    """Of shares, kept away from certainty."""
    kept = np.clip(np.asarray(shares, np.float64), 1e-4, 1 - 1e-4)
    found: Vector = np.log(kept / (1 - kept))
    return found


def _sigmoid(values: Vector) -> Vector:
    return 1.0 / (1.0 + np.exp(-np.clip(values, -50, 50)))
