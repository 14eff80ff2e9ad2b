"""Confidence calibration: signs of doubt -> the word error rate to expect of a text, learnt from labelled audio.

A logistic model on monotone features with a ridge, so that few labels do no harm. N texts, D features.
Source of the method: Platt 1999; iteratively reweighted least squares as in McCullagh and Nelder 1989.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RIDGE = 1.0
NUM_STEPS = 50
NUM_FOLDS = 5
NUM_BINS = 10
USUAL_SPEED = 12.0
"""Characters a second."""
SIGNS = ("confidence", "self_consistency", "fallback_level", "speed", "empty")
"""What a transcript tells by itself, in the order of `signs_of`."""
Vector = NDArray[np.float64]
Numbers = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""A calibration as plain values: means, scales, weights."""


def signs_of(
    confidence: float | None, self_consistency: float | None, fallback_level: int | None, text: str, seconds: float
) -> tuple[float, ...]:
    """Signs of doubt that a transcript has by itself, larger for more doubt; what was not measured says nothing."""
    sure = 0.5 if confidence is None else min(max(confidence, 1e-4), 1 - 1e-4)
    speed = max(len(text) / max(seconds, 0.02), 0.1)
    return (
        float(-np.log(sure / (1 - sure))),
        0.0 if self_consistency is None else 1.0 - self_consistency,
        float((fallback_level or 0) > 0),
        float(abs(np.log(speed / USUAL_SPEED))),
        float(not text.strip()),
    )


@dataclass(frozen=True)
class Calibration:
    """`weights_D` of standardised features, the first is a constant."""

    mean_D: Vector
    scale_D: Vector
    weights_D: Vector

    def expected_wer(self, features_ND: Vector) -> Vector:
        """Between 0 and 1, of each text."""
        standard = (features_ND - self.mean_D) / self.scale_D
        vector: Vector = _sigmoid(np.column_stack([np.ones(len(standard)), standard]) @ self.weights_D)
        return vector

    def numbers(self) -> Numbers:
        """As plain values."""
        mean, scale, weights = (tuple(map(float, each)) for each in (self.mean_D, self.scale_D, self.weights_D))
        return mean, scale, weights


def calibration_of(numbers: Numbers) -> Calibration:
    """From plain values."""
    return Calibration(*(np.array(number, np.float64) for number in numbers))


def calibration_json(calibration: Calibration, about: Mapping[str, Any]) -> bytes:
    """calibration.json: of the signs that a transcript has by itself."""
    mean, scale, weights = calibration.numbers()
    return json.dumps({**about, "signs": SIGNS, "mean": mean, "scale": scale, "weights": weights}, indent=1).encode()


def read(content: bytes) -> Numbers:
    """What `calibration_json` wrote.

    Raises:
        ValueError: it is something else.
    """
    values = json.loads(content)
    if not isinstance(values, dict) or tuple(values.get("signs", ())) != SIGNS:
        raise ValueError(f"expected the signs {', '.join(SIGNS)}")
    sizes = (("mean", len(SIGNS)), ("scale", len(SIGNS)), ("weights", len(SIGNS) + 1))
    mean, scale, weights = (tuple(map(float, values[name])) for name, _ in sizes)
    if [len(each) for each in (mean, scale, weights)] != [size for _, size in sizes] or min(scale) <= 0:
        raise ValueError("expected a number for each sign")
    return mean, scale, weights


def fit_calibration(features_ND: Vector, wer_N: Vector) -> Calibration:
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
    result = np.zeros(len(wer_N))
    for fold in range(NUM_FOLDS):
        in_fold = folds == fold
        if in_fold.any() and (~in_fold).any():
            result[in_fold] = fit_calibration(features_ND[~in_fold], wer_N[~in_fold]).expected_wer(features_ND[in_fold])
    return result


def reliability(expected_N: Vector, wer_N: Vector) -> tuple[list[tuple[float, float, int]], float]:
    """Mean expectation, mean truth and count of ten bins of equal size, and the expected calibration error."""
    bins = []
    total = 0.0
    for rows in np.array_split(np.argsort(expected_N, kind="stable"), NUM_BINS):
        if len(rows):
            expected, true = float(expected_N[rows].mean()), float(np.clip(wer_N[rows], 0, 1).mean())
            bins.append((expected, true, len(rows)))
            total += len(rows) * abs(expected - true)
    return bins, total / max(1, len(expected_N))


def _sigmoid(values: Vector) -> Vector:
    return 1.0 / (1.0 + np.exp(-np.clip(values, -50, 50)))
