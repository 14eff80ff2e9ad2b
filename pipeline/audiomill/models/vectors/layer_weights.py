"""Layer weights: a weighted sum of hidden states in place of single ones, as a probe learned it, or uniform."""

from __future__ import annotations

import json
import math

from audiomill.errors import UsageError
from audiomill.models.task import Shape
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute

UNIFORM = "uniform"


def read_layer_weights(
    mixture: str, shape: Shape, checkpoint: str, storage_options: dict[str, object]
) -> tuple[float, ...]:
    """One weight for each hidden state.

    Args:
        mixture: `uniform`, or a JSON file with a list of numbers, or with such a list under `weights`.
        shape: of the checkpoint.
        checkpoint: its name.
        storage_options: for fsspec.

    Raises:
        UsageError: there is no such file, it holds something else, or hidden states cannot be added.
    """
    count = shape.num_layers + 1
    result = [1.0 / count] * count if mixture == UNIFORM else _read(mixture, storage_options)
    if len(result) != count:
        raise UsageError(
            f"--layer-weights {mixture}: {len(result)} weights; {checkpoint} has {count} hidden states, 0 to {count - 1}"
        )
    used = [number for number, weight in enumerate(result) if weight]
    clocks = {(shape.width_of(number), shape.hops.get(number, shape.hop)) for number in used}
    if clocks != {(shape.width, shape.hop)}:
        raise UsageError(
            f"--layer-weights {mixture}: hidden states of {checkpoint} differ in width or frame rate, or no weight is above 0; "
            "give 0 to those that differ, or take --layers"
        )
    return tuple(result)


def _read(mixture: str, storage_options: dict[str, object]) -> list[float]:
    expected = "expected uniform, or a JSON file with a weight for each hidden state"
    try:
        values = json.loads(Place(absolute(mixture), storage_options).read())
        results = [float(weight) for weight in (values["weights"] if isinstance(values, dict) else values)]
    except FileNotFoundError as error:
        raise UsageError(f"--layer-weights {mixture}: no such file; {expected}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"--layer-weights {mixture}: {expected}, got {type(error).__name__}: {error}") from error
    if not all(map(math.isfinite, results)):
        raise UsageError(f"--layer-weights {mixture}: {expected}, got a weight that is no number")
    return results
