"""CTranslate2 Whisper folders (what faster-whisper users have) -> weights by the names of transformers.

Format: opennmt.net CTranslate2 `model_spec.py::_serialize`, binary version 6: a header, then name, shape, type
and bytes of every array, then aliases. No pickle: arrays are views of the file.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiomill.errors import ModelError
from audiomill.models.task import Shape
from audiomill.models.whisper.folder import WHISPER_HOP
from audiomill.models.whisper.network.dimensions import Dimensions
from audiomill.models.whisper.tokens import ENGLISH_ONLY_SIZE
from audiomill.storage.content_cache import once_per_content

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES: dict[int, Any] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16, 5: np.uint16}
BFLOAT16 = 5
LAYER_NAMES = {"self_attention": "self_attn", "attention": "encoder_attn"}


def is_ctranslate2(folder: Path) -> bool:
    """Whether a folder holds a CTranslate2 model rather than a Hugging Face one."""
    return (
        (folder / "model.bin").is_file()
        and not any(folder.glob("*.safetensors"))
        and not (folder / "pytorch_model.bin").exists()
    )


def ctranslate2_config(sizes: Dimensions) -> Any:
    """`WhisperConfig` of such a model."""
    from transformers import WhisperConfig

    end = 50256 if sizes.vocab_size == ENGLISH_ONLY_SIZE else 50257
    ids = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": end + 1}
    return WhisperConfig(**asdict(sizes), **ids)


def sizes_and_weights(folder: Path) -> tuple[Dimensions, dict[str, Tensor]]:
    """Its sizes, and the same weights in float32 by the names of transformers.

    Raises:
        ModelError: not a CTranslate2 Whisper model, or one quantised in a way that we do not read.
    """
    import torch

    arrays = read_arrays(folder / "model.bin")
    if "encoder/conv1/weight" not in arrays:
        raise ModelError(f"{folder}: a CTranslate2 model, but not Whisper; expected a converted Whisper checkpoint")
    vocabulary_size, width = arrays["decoder/embeddings/weight"].shape
    sizes = Dimensions(
        vocab_size=vocabulary_size,
        d_model=width,
        num_mel_bins=arrays["encoder/conv1/weight"].shape[1],
        encoder_layers=_num_layers(arrays, "encoder"),
        decoder_layers=_num_layers(arrays, "decoder"),
        encoder_attention_heads=int(arrays["encoder/num_heads"]),
        decoder_attention_heads=int(arrays["decoder/num_heads"]),
        encoder_ffn_dim=arrays["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=arrays["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_target_positions=arrays["decoder/position_encodings/encodings"].shape[0],
    )
    try:
        named = _torch_names(arrays, width)
    except KeyError as error:
        raise ModelError(f"{folder}: expected every Whisper weight, {error.args[0]} is missing") from error
    return sizes, {name: torch.from_numpy(np.ascontiguousarray(each, np.float32)) for name, each in named.items()}


@once_per_content
def ctranslate2_shape(folder: Path) -> Shape:
    """Of a CTranslate2 Whisper folder."""
    arrays = read_arrays(folder / "model.bin")
    width = arrays["decoder/embeddings/weight"].shape[1]
    return Shape(width=width, num_layers=_num_layers(arrays, "encoder"), hop=WHISPER_HOP)


def generation_settings(folder: Path) -> dict[str, Any]:
    """Suppressed tokens and alignment heads of the converter's config.json, by the names of transformers."""
    path = folder / "config.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    return {
        "suppress_tokens": settings.get("suppress_ids"),
        "begin_suppress_tokens": settings.get("suppress_ids_begin"),
        "alignment_heads": settings.get("alignment_heads"),
    }


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a CTranslate2 model by name; int8 and int16 weights are turned back into floats."""
    if path.stat().st_size == 0:
        raise ModelError(f"{path}: expected a CTranslate2 model, got an empty file")
    content = np.memmap(path, np.uint8, "r")
    reader = _Reader(content)
    version, name, _ = reader.number("I"), reader.string(), reader.number("I")
    if version != 6 or not name:
        raise ModelError(f"{path}: expected a CTranslate2 model of binary version 6, got {version} ({name!r})")
    arrays: dict[str, NDArray[Any]] = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind = reader.number("B")
        raw = reader.take(reader.number("I"))
        if kind not in _DTYPES:
            raise ModelError(f"{path}: array {name} has an unknown type {kind}")
        array = raw.view(_DTYPES[kind]).reshape(shape)
        arrays[name] = (array.astype(np.uint32) << 16).view(np.float32) if kind == BFLOAT16 else array
    for _ in range(reader.number("I")):
        alias, target = reader.string(), reader.string()
        arrays[alias] = arrays[target]
    return {name: _dequantised(name, array, arrays) for name, array in arrays.items() if not name.endswith("_scale")}


class _Reader:
    """A cursor over the bytes of the file."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self._content, self._at = content, 0

    def take(self, count: int) -> NDArray[np.uint8]:
        piece = self._content[self._at : self._at + count]
        if len(piece) < count:
            raise ModelError("the CTranslate2 model file is cut short")
        self._at += count
        return np.array(piece)  # a copy: the file has no alignment

    def number(self, code: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize(code)).tobytes())[0])

    def string(self) -> str:
        return self.take(self.number("H")).tobytes().rstrip(b"\0").decode("utf-8", "replace")


def _dequantised(name: str, array: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    scale = arrays.get(f"{name}_scale")
    if scale is None or array.dtype not in (np.int8, np.int16):
        return array
    return array.astype(np.float32) / np.asarray(scale, np.float32).reshape(-1, *([1] * (array.ndim - 1)))


def _num_layers(arrays: dict[str, NDArray[Any]], side: str) -> int:
    return len(
        {
            name.split("/")[1]
            for name in arrays
            if name.startswith(f"{side}/layer_") and name.split("/")[1] != "layer_norm"
        }
    )


def _torch_names(arrays: dict[str, NDArray[Any]], width: int) -> dict[str, NDArray[Any]]:
    named: dict[str, NDArray[Any]] = {
        "model.decoder.embed_tokens.weight": arrays["decoder/embeddings/weight"],
        "model.decoder.embed_positions.weight": arrays["decoder/position_encodings/encodings"],
        "model.encoder.embed_positions.weight": arrays["encoder/position_encodings/encodings"],
    }
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            named[f"model.encoder.{conv}.{kind}"] = arrays[f"encoder/{conv}/{kind}"]
    for side in ("encoder", "decoder"):
        _norm(named, arrays, f"{side}/layer_norm", f"model.{side}.layer_norm")
        for number in range(_num_layers(arrays, side)):
            ours, theirs = f"model.{side}.layers.{number}", f"{side}/layer_{number}"
            for block in ("self_attention", "attention") if side == "decoder" else ("self_attention",):
                _attention(named, arrays, f"{theirs}/{block}", f"{ours}.{LAYER_NAMES[block]}", width)
            _norm(named, arrays, f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            for index, linear in enumerate(("fc1", "fc2")):
                for kind in ("weight", "bias"):
                    named[f"{ours}.{linear}.{kind}"] = arrays[f"{theirs}/ffn/linear_{index}/{kind}"]
    return named


def _norm(named: dict[str, NDArray[Any]], arrays: dict[str, NDArray[Any]], theirs: str, ours: str) -> None:
    named[f"{ours}.weight"], named[f"{ours}.bias"] = arrays[f"{theirs}/gamma"], arrays[f"{theirs}/beta"]


def _attention(
    named: dict[str, NDArray[Any]], arrays: dict[str, NDArray[Any]], theirs: str, ours: str, width: int
) -> None:
    """Self-attention holds Q, K, V fused in one matrix; cross-attention Q, then K, V. K has no bias in Whisper."""
    fused = ("q_proj", "k_proj", "v_proj") if theirs.endswith("self_attention") else ("k_proj", "v_proj")
    sources = [("linear_0", fused), ("linear_1", ("out_proj",))]
    if len(fused) == 2:
        sources = [("linear_0", ("q_proj",)), ("linear_1", fused), ("linear_2", ("out_proj",))]
    for linear, names in sources:
        for index, name in enumerate(names):
            rows = slice(index * width, (index + 1) * width)
            named[f"{ours}.{name}.weight"] = arrays[f"{theirs}/{linear}/weight"][rows]
            if name != "k_proj":
                named[f"{ours}.{name}.bias"] = arrays[f"{theirs}/{linear}/bias"][rows]
    _norm(named, arrays, f"{theirs}/layer_norm", f"{ours}_layer_norm")
