"""Quantizers of hidden states: k-means codebooks and the quantizer of wav2vec 2.0 pretraining checkpoints.

N frames, D width, K codebooks, V entries.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from torch import Tensor

from audiomill.errors import InputError, ModelError
from audiomill.storage.fs import Place

CENTROIDS, DESCRIPTION = "centroids", "audiomill-codebook"
QUANTIZER_WEIGHT = "quantizer.weight_proj.weight"
_CHUNK_FRAMES = 16_384


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """Cluster centres in the space of one layer. `fingerprint`: of the weights it was fitted on, None if unknown."""

    centroids_VD: NDArray[np.float32]
    layer: int
    model: str
    fingerprint: str | None


class NearestCentroid:
    """hidden_ND -> codes_N1: one matrix product a chunk. |x - c|^2 = |x|^2 - 2xc + |c|^2, the first is common to all."""

    def __init__(self, centroids_VD: NDArray[np.float32], device: torch.device) -> None:
        self._centroids_DV = torch.from_numpy(np.ascontiguousarray(centroids_VD.T)).to(device)
        self._half_norm_V = self._centroids_DV.square().sum(0) / 2

    def __call__(self, hidden_ND: Tensor) -> Tensor:
        chunks = [self._nearest(chunk) for chunk in torch.split(hidden_ND.float(), _CHUNK_FRAMES)]
        return torch.cat(chunks)[:, None]

    def _nearest(self, chunk_ND: Tensor) -> Tensor:
        return torch.addmm(self._half_norm_V, chunk_ND, self._centroids_DV, alpha=-1).argmin(-1)


class GumbelArgmax:
    """conv_ND -> codes_NK: wav2vec 2.0's quantizer without its noise, the entry with the largest logit of each group.

    Source: arXiv:2006.11477 section 2; transformers `Wav2Vec2GumbelVectorQuantizer` in evaluation mode.
    """

    def __init__(self, tensors: Mapping[str, Tensor], num_codebooks: int, eps: float, device: torch.device) -> None:
        self._norm = [
            tensors[f"feature_projection.layer_norm.{name}"].float().to(device) for name in ("weight", "bias")
        ]
        self._weight, self._bias = (
            tensors[f"quantizer.weight_proj.{n}"].float().to(device) for n in ("weight", "bias")
        )
        self._num_codebooks, self._eps = num_codebooks, eps

    def __call__(self, conv_ND: Tensor) -> Tensor:
        normed = torch.nn.functional.layer_norm(
            conv_ND.float(), conv_ND.shape[-1:], self._norm[0], self._norm[1], self._eps
        )
        logits = torch.nn.functional.linear(normed, self._weight, self._bias)
        return logits.view(len(logits), self._num_codebooks, -1).argmax(-1)


def gumbel_of(folder: Path, num_codebooks: int, device: torch.device) -> GumbelArgmax:
    """The quantizer of a pretraining checkpoint's folder."""
    tensors = read_tensors(folder, ("quantizer.weight_proj.", "feature_projection.layer_norm."))
    eps = json.loads((folder / "config.json").read_text()).get("layer_norm_eps", 1e-5)
    return GumbelArgmax(tensors, num_codebooks, eps, device)


def has_quantizer(folder: Path) -> bool:
    """Whether the weights hold a wav2vec 2.0 quantizer."""
    return any(
        name.endswith(QUANTIZER_WEIGHT) for path in sorted(folder.glob("*.safetensors")) for name in _names(path)
    ) or any(
        name.endswith(QUANTIZER_WEIGHT) for path in sorted(folder.glob("pytorch_model*.bin")) for name in _pickled(path)
    )


def check_same_convolutions(ours: Path, theirs: Path) -> None:
    """Raises ModelError unless both folders have the same convolutional encoder: then theirs can read our features."""
    mine, other = (read_tensors(folder, ("feature_extractor.",)) for folder in (ours, theirs))
    if mine.keys() != other.keys() or any(not torch.equal(mine[name].float(), other[name].float()) for name in mine):
        raise ModelError(
            f"--codebook quantizer={theirs}: its convolutions differ from those of {ours}, so its quantizer cannot read them; "
            "run it as a model of its own (audiomill encode --model, or a second model of a job.yaml)"
        )


def read_tensors(folder: Path, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Tensors of a Hugging Face folder whose name holds one of `parts`, named from there on. No pickle but tensors."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as handle:
            tensors |= dict(_picked(((name, handle.get_tensor(name)) for name in handle.keys()), parts))  # noqa: SIM118
    if not tensors:
        for path in sorted(folder.glob("pytorch_model*.bin")):
            tensors |= dict(_picked(iter(_pickled(path).items()), parts))
    return tensors


def _picked(tensors: Iterator[tuple[str, Tensor]], parts: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors:
        for part in parts:
            if part in name:
                yield name[name.index(part) :], tensor


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as handle:
        return list(handle.keys())


def _pickled(path: Path) -> dict[str, Tensor]:
    result: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return result


def write_codebook(place: Place, codebook: Codebook) -> None:
    """One safetensors file that says what it is for in its header."""
    described = {"model": codebook.model, "layer": codebook.layer, "fingerprint": codebook.fingerprint}
    # One entry: several would be written in an order that changes from run to run.
    metadata = {DESCRIPTION: json.dumps(described, sort_keys=True)}
    place.write(save_safetensors({CENTROIDS: codebook.centroids_VD.astype(np.float32)}, metadata=metadata))


def read_codebook(place: Place, layer: int | None) -> Codebook:
    """A codebook from .safetensors as `audiomill kmeans` writes it, or plain .npy.

    Args:
        place: the file.
        layer: hidden state it is for; must be given for .npy, and may be left out else.

    Raises:
        InputError: absent, of another format (.km and joblib files are pickles: convert them), or not a matrix.
    """
    name = place.url.rsplit("/", 1)[-1]
    if not name.endswith((".safetensors", ".npy")):
        raise InputError(
            f"--codebook {place.url}: expected .safetensors or .npy; convert .km, .bin and joblib files with "
            f"`audiomill codebook {name} --layer N --output {name.split('.')[0]}.safetensors`"
        )
    try:
        content = place.read()
    except FileNotFoundError as error:
        raise InputError(f"--codebook {place.url}: no such file; make one with `audiomill kmeans`") from error
    try:
        if name.endswith(".npy"):
            centroids, described = np.load(io.BytesIO(content), allow_pickle=False), {}
        else:
            centroids, described = load_safetensors(content)[CENTROIDS], _metadata(content)
    except (ValueError, KeyError, SafetensorError, EOFError) as error:
        raise InputError(f"--codebook {place.url}: cannot be read as a codebook ({error})") from error
    if centroids.ndim != 2 or not np.issubdtype(centroids.dtype, np.floating) or not np.isfinite(centroids).all():
        raise InputError(
            f"--codebook {place.url}: expected a matrix of finite numbers, entries by width, got {centroids.dtype} {centroids.shape}"
        )
    recorded = described.get("layer")
    if recorded is not None and layer is not None and int(recorded) != layer:
        raise InputError(
            f"--codebook {place.url}: it is for layer {recorded}, not for {layer}; leave --codebook-layer out"
        )
    result = layer if layer is not None else recorded
    if result is None:
        raise InputError(f"--codebook {place.url}: say which layer it is for: --codebook-layer N (codebook: --layer N)")
    return Codebook(
        centroids_VD=centroids.astype(np.float32),
        layer=int(result),
        model=described.get("model") or "",
        fingerprint=described.get("fingerprint") or None,
    )


def codebook_fingerprint(codebook: Codebook) -> str:
    """Hash of what changes codes."""
    return hashlib.sha256(codebook.centroids_VD.tobytes() + str(codebook.layer).encode()).hexdigest()[:16]


def _metadata(content: bytes) -> dict[str, Any]:
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    result: dict[str, Any] = json.loads(metadata.get(DESCRIPTION, "{}"))
    return result
