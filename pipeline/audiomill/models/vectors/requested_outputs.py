"""What the user asked of a checkpoint -> requested outputs with layers and codebooks resolved, or an error that says what to use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audiomill.audio.clock import MODEL_SAMPLE_RATE
from audiomill.config.representations import CodesConfig, EmbeddingsConfig
from audiomill.config.stages import ModelConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.base import CONV, MIXED, CodesRequest, VectorRequest
from audiomill.models.checkpoint import Checkpoint, checkpoint_fingerprint, find_checkpoint, shape_of
from audiomill.models.family import VECTORS
from audiomill.models.task import Shape
from audiomill.models.vectors.layer_weights import read_layer_weights
from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute

QUANTIZER = "quantizer"


def settled_vectors(
    configs: Sequence[EmbeddingsConfig], checkpoint: Checkpoint, shape: Shape, storage_options: dict[str, Any]
) -> Iterator[VectorRequest]:
    """One want a layer, or one for a mixture of all.

    Raises:
        ModelError: the checkpoint gives no vectors.
        UsageError: a layer that the model does not have, or a mixture that does not fit it.
    """
    if configs:
        checkpoint.require(VECTORS, f"{checkpoint.name}: gives codes and no vectors: `audiomill encode` writes them")
    for config in configs:
        form = {name: getattr(config, name) for name in ("pool", "dtype", "l2_normalize")}
        form["over_speech"] = config.pool_speech
        if shape.is_pooled:
            form["pool"] = _whole(config, checkpoint)
        if config.layer_weights is not None:
            weights = read_layer_weights(config.layer_weights, shape, checkpoint.name, storage_options)
            yield VectorRequest(layer=MIXED, weights=weights, stride=config.frame_stride, **form)
            continue
        for layer in layer_numbers(config.layers, shape, "--layers"):
            yield VectorRequest(layer=layer, stride=config.frame_stride, **form)


def _whole(config: EmbeddingsConfig, checkpoint: Checkpoint) -> str:
    """How a model pools that has one vector a segment."""
    if (
        config.pool not in ("none", "mean")
        or config.pool_speech
        or config.layer_weights is not None
        or config.frame_stride > 1
    ):
        raise UsageError(
            f"{checkpoint.name} makes one vector of a segment: leave out --pool, --pool-speech, --layer-weights and --frame-stride; "
            "--segment vad gives a vector for each stretch of speech"
        )
    return "mean"


def layer_numbers(text: str, shape: Shape, option: str) -> list[int]:
    """`"6,9,-1"` -> `[6, 9, 12]`; `"all"` -> every hidden state from 0 on."""
    if text.strip() == "all":
        return list(range(shape.num_layers + 1))
    results = [_layer_number(name.strip(), shape, option) for name in str(text).split(",") if name.strip()]
    if not results:
        raise UsageError(f"{option} {text!r}: expected numbers such as 6,9,-1, or all")
    return list(dict.fromkeys(results))


def _layer_number(name: str, shape: Shape, option: str) -> int:
    if name in shape.layer_names:
        return shape.layer_names.index(name)
    count = shape.num_layers + 1
    try:
        number = int(name)
    except ValueError:
        number = count
    if not -count <= number < count:
        names = f" or {', '.join(shape.layer_names)}" if shape.layer_names else ""
        raise UsageError(
            f"{option} {name}: expected a number; this model has hidden states 0 to {count - 1} (or -{count} to -1){names}"
        )
    return number % count


def settled_codes(
    configs: Sequence[CodesConfig], checkpoint: Checkpoint, shape: Shape, storage_options: dict[str, Any]
) -> tuple[list[CodesRequest], list[str]]:
    """One want a quantizer or codebook, and the fingerprint of what is not part of the checkpoint.

    Raises:
        UsageError: the checkpoint has no quantizer, or a codebook is not there or does not fit it.
    """
    requested, file_hashes = [], []
    for config in configs:
        for source in [each.strip() for each in config.codebook.split(",") if each.strip()]:
            if source == QUANTIZER:
                want, result = _own_quantizer(checkpoint, shape), None
            elif source.startswith(QUANTIZER + "="):
                want, result = _other_quantizer(source.removeprefix(QUANTIZER + "="), checkpoint, storage_options)
            else:
                want, result = _codebook(source, config.codebook_layer, checkpoint, shape, storage_options)
            if config.codebooks is not None:
                want = _first_ones(want, config.codebooks)
            if config.bandwidth is not None:
                want = _within(want, config.bandwidth, float(MODEL_SAMPLE_RATE / shape.step))
            requested.append(replace(want, deduplicate=config.deduplicate))
            file_hashes += [result] if result is not None else []
    names = [want.name for want in requested]
    if len(set(names)) < len(names):
        raise UsageError(f"--codebook: {', '.join(names)} would have the same name in the table; rename a file")
    return requested, file_hashes


def _first_ones(want: CodesRequest, number: int) -> CodesRequest:
    if not 1 <= number <= want.num_codebooks:
        raise UsageError(
            f"--codebooks {number}: {want.name} has {want.num_codebooks}; ask for 1 to {want.num_codebooks}"
        )
    return replace(want, num_kept=number)


def _within(want: CodesRequest, kilobits: float, frame_rate: float) -> CodesRequest:
    """As many codebooks as fit a bandwidth."""
    each = frame_rate * math.log2(want.num_entries) / 1000
    number = min(want.num_codebooks, int(kilobits / each + 1e-6))
    if not number:
        raise UsageError(f"--bandwidth {kilobits:g}: one codebook of {want.name} takes {each:.3g} kilobits a second")
    return replace(want, num_kept=number)


def _own_quantizer(checkpoint: Checkpoint, shape: Shape) -> CodesRequest:
    """Hugging Face's quantizers read the convolutions' output; those of vq-wav2vec are part of the model."""
    if shape.quantizer is None:
        raise _no_quantizer(checkpoint)
    codebooks, entries = shape.quantizer
    layer = None if checkpoint.family.quantizes_itself else CONV
    return CodesRequest(
        name=QUANTIZER, source="", layer=layer, num_codebooks=codebooks, num_entries=entries, num_kept=codebooks
    )


def _no_quantizer(checkpoint: Checkpoint) -> ModelError:
    return ModelError(
        f"--codebook quantizer: {checkpoint.name} has no quantizer (only wav2vec 2.0 pretraining checkpoints, "
        "Wav2Vec2ForPreTraining, vq-wav2vec and codecs have; fine-tuning drops it). Use the checkpoint it was fine-tuned from, "
        "or fit k-means codes of a layer: `audiomill kmeans INPUT --model ... --layer 9 --output km.safetensors`, "
        "then --codebook km.safetensors"
    )


def _other_quantizer(name: str, checkpoint: Checkpoint, storage_options: dict[str, Any]) -> tuple[CodesRequest, str]:
    from audiomill.models.codes.codebooks import check_same_convolutions

    other = find_checkpoint(ModelConfig(model=name), storage_options)
    if not checkpoint.family.lends_quantizer:
        raise _no_quantizer(other)
    want = _own_quantizer(other, shape_of(other))
    check_same_convolutions(Path(checkpoint.path), Path(other.path))
    return replace(want, source=other.name), checkpoint_fingerprint(other)


def _codebook(
    source: str, layer: int | None, checkpoint: Checkpoint, shape: Shape, storage_options: dict[str, Any]
) -> tuple[CodesRequest, str]:
    from audiomill.models.codes.codebooks import codebook_fingerprint, read_codebook

    checkpoint.require(
        VECTORS, f"--codebook {source}: {checkpoint.name} has no layers to quantise, only its own codes: leave it out"
    )
    place = Place(absolute(source), storage_options)
    codebook = read_codebook(place, layer)
    entries, width = codebook.centroids_VD.shape
    number = _layer_number(str(codebook.layer), shape, f"layer of {source}:")
    if width != shape.width_of(number):
        raise UsageError(
            f"--codebook {source}: its entries have {width} values, hidden states of {checkpoint.name} have {shape.width_of(number)}"
        )
    if not 2 <= entries <= 65_536:
        raise UsageError(f"--codebook {source}: expected 2 to 65536 entries, got {entries}")
    if (
        codebook.fingerprint is not None
        and checkpoint.family.scheme is None
        and codebook.fingerprint != checkpoint_fingerprint(checkpoint)
    ):
        raise UsageError(
            f"--codebook {source}: fitted on other weights ({codebook.model}, {codebook.fingerprint}) than {checkpoint.name} has; "
            f"use that model, or fit a codebook for this one, or say that it fits with `audiomill codebook {source} --layer {codebook.layer} --output NEW`"
        )
    name = place.url.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    want = CodesRequest(name=name, source=place.url, layer=number, num_codebooks=1, num_entries=entries, num_kept=1)
    return want, codebook_fingerprint(codebook)
