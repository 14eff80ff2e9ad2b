"""wav2vec and vq-wav2vec as their papers define them, in plain numpy loops; slow, and written apart from the product.

arXiv:1904.05862: a convolutional encoder f: X -> Z (kernels 10, 8, 4, 4, 4, strides 5, 4, 2, 2, 2; 10 ms a frame) and a
causal context network g: Z -> C, each layer a convolution, group normalisation with one group, a ReLU.
arXiv:1910.05453: between them Z is replaced by entries of codebooks: argmax of logits (Gumbel) or nearest entry of a
normalised projection (k-means), in G groups. What the papers leave open (replicate padding, log compression, skip
connections scaled by sqrt(0.5)) is fairseq's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def conv(x_CF: Array, weight_OCK: Array, stride: int, bias: Array | None = None) -> Array:
    width = weight_OCK.shape[2]
    frames = (x_CF.shape[1] - width) // stride + 1
    out = np.stack([np.tensordot(weight_OCK, x_CF[:, f * stride : f * stride + width], 2) for f in range(frames)], 1)
    return out if bias is None else out + bias[:, None]


def group_norm(x_CF: Array, groups: int, weight: Array, bias: Array) -> Array:
    out = np.empty_like(x_CF)
    size = len(x_CF) // groups
    for g in range(groups):
        block = x_CF[g * size : (g + 1) * size]
        out[g * size : (g + 1) * size] = (block - block.mean()) / np.sqrt(block.var() + 1e-5)
    return out * weight[:, None] + bias[:, None]


def activate(x: Array, name: str) -> Array:
    if name == "relu":
        return np.maximum(x, 0)
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def encode(state: dict[str, Array], spec: dict[str, Any], waveform_T: Array) -> Array:
    """z_CF."""
    x = waveform_T[None]
    for i, (_, _, stride) in enumerate(spec["conv_feature_layers"]):
        name = f"feature_extractor.conv_layers.{i}"
        before = x
        x = conv(x, state[f"{name}.0.weight"], stride)
        x = activate(group_norm(x, 1, state[f"{name}.2.weight"], state[f"{name}.2.bias"]), spec["activation"])
        if spec["skip_connections_feat"] and before.shape[0] == x.shape[0]:
            residual = before[:, :: before.shape[1] // x.shape[1]][:, : x.shape[1]]
            x = (x + residual) * math.sqrt(0.5)
    return np.log(np.abs(x) + 1) if spec["log_compression"] else x


def aggregate(state: dict[str, Array], spec: dict[str, Any], z_CF: Array) -> Array:
    """c_CF."""
    x = z_CF
    for i, (_, kernel, stride) in enumerate(spec["conv_aggregator_layers"]):
        name = f"feature_aggregator.conv_layers.{i}"
        padded = np.concatenate([np.repeat(x[:, :1], kernel - 1, 1), x], 1)
        y = conv(padded, state[f"{name}.1.weight"], stride, state[f"{name}.1.bias"])
        y = activate(group_norm(y, 1, state[f"{name}.3.weight"], state[f"{name}.3.bias"]), spec["activation"])
        if spec["skip_connections_agg"]:
            projection = state.get(f"feature_aggregator.residual_proj.{i}.weight")
            x = (y + (x if projection is None else projection[:, :, 0] @ x)) * math.sqrt(0.5)
        else:
            x = y
    return x


def quantize(state: dict[str, Array], spec: dict[str, Any], z_CF: Array) -> tuple[NDArray[np.int64], Array]:
    """codes_KF and the chosen entries, q_CF."""
    groups, entries = spec["vq_groups"], spec["vq_vars"]
    if spec["vq_type"] == "gumbel":
        h = z_CF
        if "vector_quantizer.weight_proj.weight" in state:
            w, b = state["vector_quantizer.weight_proj.weight"], state["vector_quantizer.weight_proj.bias"]
            logits = w @ h + b[:, None]
        else:
            for i in range(spec["vq_depth"] - 1):
                w, b = (state[f"vector_quantizer.weight_proj.{i}.0.{n}"] for n in ("weight", "bias"))
                h = activate(w @ h + b[:, None], spec["activation"])
            w, b = (state[f"vector_quantizer.weight_proj.{spec['vq_depth'] - 1}.{n}"] for n in ("weight", "bias"))
            logits = w @ h + b[:, None]
        codes = logits.reshape(groups, entries, -1).argmax(1)
        table = state["vector_quantizer.vars"][0]
        books = [table if spec["combine_groups"] else table[g * entries : (g + 1) * entries] for g in range(groups)]
    else:
        weight = state["vector_quantizer.projection.0.weight"][:, :, 0]
        size = len(z_CF) // groups
        ze = np.concatenate(
            [weight[g * size : (g + 1) * size] @ z_CF[g * size : (g + 1) * size] for g in range(groups)]
        )
        ze = group_norm(
            ze, groups, state["vector_quantizer.projection.1.weight"], state["vector_quantizer.projection.1.bias"]
        )
        table = state["vector_quantizer.embedding"]
        books = [table[:, 0 if spec["combine_groups"] else g] for g in range(groups)]
        codes = np.stack(
            [
                [
                    int(np.argmin(np.linalg.norm(books[g] - ze[g * size : (g + 1) * size, f], axis=1)))
                    for f in range(ze.shape[1])
                ]
                for g in range(groups)
            ]
        )
    return codes, np.concatenate([books[g][codes[g]].T for g in range(groups)])
