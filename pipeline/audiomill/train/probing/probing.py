"""The probe job: labels told from pooled hidden states, by cross-validation; and the weights of the layers."""

from __future__ import annotations

import hashlib
import html
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from audiomill.config.output_jobs import ProbeJobConfig
from audiomill.errors import InputError, UsageError
from audiomill.html.figures import bars
from audiomill.html.page import document, section, table
from audiomill.models.vectors.probe import fitted
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute
from audiomill.train.probing.examples import Examples, read_examples

Fold = NDArray[np.bool_]
"""Samples that are told from the others."""


def probe_layers(config: ProbeJobConfig, console: Console) -> dict[str, Any]:
    """Fits, measures and writes.

    Returns:
        What probe.json holds.

    Raises:
        UsageError, InputError: no vectors, no labels, or too few groups of a class.
    """
    asked = config.probe
    examples = read_examples(Place(absolute(config.only_input()), asked.storage_options), asked)
    names = sorted(set(examples.labels))
    classes_N = np.array([names.index(label) for label in examples.labels])
    folds = _folds(examples, names, asked.folds, asked.seed)
    ways: dict[str, tuple[list[int], bool]] = {
        "mixture, learned": (list(range(len(examples.layers))), True),
        "mixture, uniform": (list(range(len(examples.layers))), False),
    }
    ways |= {f"layer {layer}": ([at], False) for at, layer in enumerate(examples.layers)}
    accuracies: dict[str, list[float]] = {}
    for number, (way, (chosen, learns)) in enumerate(ways.items()):
        if not config.output.quiet:
            console.print(f"probe {number + 1} of {len(ways)}: {way}", style="dim")
        features = examples.features_NLD[:, chosen]
        accuracies[way] = [_accuracy(features, classes_N, fold, len(names), asked.l2, learns) for fold in folds]
    whole = fitted(examples.features_NLD, classes_N, len(names), asked.l2, True)
    weights = np.zeros(examples.layers[-1] + 1)
    shares = weights.copy()
    weights[examples.layers], shares[examples.layers] = whole.weights_L, whole.shares_L
    results = {
        "by": asked.by,
        "classes": dict(Counter(examples.labels).most_common()),
        "segments": len(classes_N),
        "without_label": examples.num_unlabelled,
        "folds": len(folds),
        "majority": max(Counter(examples.labels).values()) / len(classes_N),
        "accuracy": {way: float(np.mean(values)) for way, values in accuracies.items()},
        "spread": {way: float(np.std(values)) for way, values in accuracies.items()},
        "weights": weights.tolist(),
        "shares": shares.tolist(),
    }
    to = Place(absolute(config.output.output), asked.storage_options)
    to.join("weights.json").write(json.dumps({"weights": results["weights"]}).encode())
    to.join("probe.json").write(json.dumps(results, indent=1, ensure_ascii=False).encode())
    to.join("probe.html").write(_page(results).encode())
    return results


def _accuracy(
    features: NDArray[np.float32], classes_N: NDArray[np.int64], fold: Fold, count: int, l2: float, learns: bool
) -> float:
    """Mean over the classes of the share that is told right (balanced accuracy)."""
    probe = fitted(features[~fold], classes_N[~fold], count, l2, learns)
    right = probe.classes(features[fold]) == classes_N[fold]
    return float(np.mean([right[classes_N[fold] == each].mean() for each in np.unique(classes_N[fold])]))


def _folds(examples: Examples, names: Sequence[str], count: int, seed: int) -> list[Fold]:
    """Parts with whole groups, each with as many of every class as can be.

    Raises:
        InputError: one class only.
        UsageError: a class with fewer groups than two.
    """
    if len(names) < 2:
        raise InputError(f"only one class ({names[0]}): expected labels of two or more")
    groups_of: defaultdict[str, set[str]] = defaultdict(set)
    for label, group in zip(examples.labels, examples.groups, strict=True):
        groups_of[label].add(group)
    scarce = [label for label, groups in groups_of.items() if len(groups) < 2]
    if scarce:
        raise UsageError(
            f"{', '.join(sorted(scarce)[:5])}: only one group (recording, or --group) each, so nothing is left to test on; "
            "label more, or leave these classes out"
        )
    part_of: dict[str, int] = {}
    sizes = np.zeros((count, len(names)))
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(examples.labels, examples.groups, strict=True):
        counts[group][label] += 1
    order = sorted(counts, key=lambda group: hashlib.sha256(f"{seed}\0{group}".encode()).digest())
    for group in sorted(order, key=lambda group: -sum(counts[group].values())):
        row = np.array([counts[group][name] for name in names], float)
        fullness = [(float((sizes[part] * (row > 0)).sum()), float(sizes[part].sum()), part) for part in range(count)]
        part_of[group] = min(fullness)[2]
        sizes[part_of[group]] += row
    number_N = np.array([part_of[group] for group in examples.groups])
    return [number_N == part for part in range(count) if (number_N == part).any()]


def _page(result: dict[str, Any]) -> str:
    ways = list(result["accuracy"])
    rows = [[way, f"{result['accuracy'][way]:.1%}", f"{result['spread'][way]:.1%}"] for way in ways]
    layers = [f"layer {number}" for number in range(len(result["shares"]))]
    summary = (
        f"<p>{result['segments']:,} segments, {len(result['classes'])} classes of {html.escape(result['by'])}, "
        f"{result['folds']} folds; the most frequent class alone is {result['majority']:.1%}.</p>"
    )
    body = section(
        "Told right, mean over the classes",
        summary
        + bars("Accuracy", "share", ways, [result["accuracy"][way] for way in ways])
        + table(("", "accuracy", "spread over the folds"), rows),
    )
    body += section("What the learned mixture hears", bars("Shares of the layers", "share", layers, result["shares"]))
    return document("Probe", f'<main id="overview">{body}</main>')
