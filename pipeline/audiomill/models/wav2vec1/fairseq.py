"""Checkpoints of wav2vec (v1) and vq-wav2vec: fairseq's files, read without unpickling anything but tensors and plain
arguments, and folders of our own, with the same names of tensors.

B batch, F frames.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import pickle
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from audiomill.errors import ModelError
from audiomill.models.task import Shape
from audiomill.models.wav2vec1.network import QUANTIZERS, Wav2Vec, Wav2VecSpec

NOT_NEEDED = ("wav2vec_predictions.", "project_features.", "vector_quantizer.curr_temp")
"""Tensors of the training objective."""
_MODEL_TYPE = "audiomill_wav2vec"
WEIGHTS, FAIRSEQ_FILE = "model.safetensors", "wav2vec.pt"


def read_checkpoint(path: Path, with_weights: bool = True) -> tuple[Wav2VecSpec, dict[str, torch.Tensor]]:
    """Architecture and state dict of a .pt file, or of a folder that was trained here.

    Args:
        path: of the file or folder.
        with_weights: else a folder's config.json is enough, and the state dict is empty.

    Raises:
        ModelError: neither of them.
    """
    if path.is_file():
        return read_fairseq(path)
    place = path / "config.json"
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
        if values.get("model_type") != _MODEL_TYPE:
            raise ModelError(
                f"{path}: a {values.get('model_type')} checkpoint; expected fairseq's .pt file of wav2vec or vq-wav2vec, a folder "
                "that --objective wav2vec or vq-wav2vec made, or new://wav2vec and the like"
            )
        state = load_file(path / WEIGHTS) if with_weights else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); expected config.json and {WEIGHTS}") from error
    return _spec(place, values), state


def save_checkpoint(model: Wav2Vec, folder: Path) -> None:
    """config.json and model.safetensors, as `--model` takes them, and a .pt file as fairseq writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**dataclasses.asdict(model.spec), "conv_feature_layers": _written(model.spec.conv_feature_layers)}
    values["conv_aggregator_layers"] = _written(model.spec.conv_aggregator_layers)
    (folder / "config.json").write_text(json.dumps({"model_type": _MODEL_TYPE, **values}, indent=1), encoding="utf-8")
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    args = argparse.Namespace(arch="wav2vec", task="audio_pretraining", aggregator="cnn", **values)
    torch.save({"args": args, "model": state}, folder / FAIRSEQ_FILE)


def _written(layers: tuple[tuple[int, int, int], ...]) -> str:
    return str(list(layers))


def shape_of_fairseq(path: Path) -> Shape:
    """Of a .pt file or folder."""
    spec, _ = read_checkpoint(path, with_weights=False)
    quantizer = (spec.vq_groups, spec.vq_vars) if spec.vq_type != "none" else None
    return Shape(
        width=spec.width,
        num_layers=1,
        hop=spec.hop,
        layer_names=("z", "c"),
        quantizer=quantizer,
        other_widths={1: spec.conv_aggregator_layers[-1][0]},
    )


def load_fairseq(path: Path) -> Wav2Vec:
    """The model of a .pt file or folder, in evaluation mode.

    Raises:
        ModelError: not a wav2vec or vq-wav2vec checkpoint, or its arguments do not fit its tensors.
    """
    spec, state = read_checkpoint(path)
    model = Wav2Vec(spec)
    wanted = {name: tensor for name, tensor in state.items() if not name.startswith(NOT_NEEDED)}
    try:
        model.load_state_dict(wanted)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: the tensors do not fit the checkpoint's own arguments ({reason})") from error
    return model.eval()


def read_fairseq(path: Path) -> tuple[Wav2VecSpec, dict[str, torch.Tensor]]:
    """Architecture and state dict. Only tensors, plain values and `argparse.Namespace` are let through.

    Raises:
        ModelError: something else is inside.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: not read, because it holds more than tensors and plain arguments ({reason}); "
            "save {'model': state_dict, 'args': argparse.Namespace(...)} from it where you trust it"
        ) from error
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or "feature_extractor.conv_layers.0.0.weight" not in state:
        raise ModelError(
            f"{path}: expected a fairseq checkpoint of wav2vec (v1) or vq-wav2vec with 'model' and 'args'; "
            "for wav2vec 2.0 and HuBERT give a Hugging Face folder"
        )
    given = content.get("args")
    config = content.get("cfg")
    values = (
        vars(given)
        if isinstance(given, argparse.Namespace)
        else config.get("model")
        if isinstance(config, dict)
        else None
    )
    if not isinstance(values, dict):
        raise ModelError(
            f"{path}: no 'args' beside the weights; they hold strides and activations, which weights do not show"
        )
    return _spec(path, values), state


def _spec(path: Path, values: Mapping[str, Any]) -> Wav2VecSpec:
    known = {field.name: values[field.name] for field in fields(Wav2VecSpec) if values.get(field.name) is not None}
    if values.get("aggregator", "cnn") != "cnn" or known.get("vq_type", "none") not in ("none", *QUANTIZERS):
        raise ModelError(f"{path}: only the convolutional aggregator and Gumbel or k-means quantizers are read")
    for name in ("conv_feature_layers", "conv_aggregator_layers"):
        if name in known:
            try:
                known[name] = tuple(tuple(layer) for layer in _listed(ast.parse(str(known[name]), mode="eval").body))
            except (ValueError, SyntaxError, TypeError) as error:
                raise ModelError(
                    f"{path}: {name} is {known[name]!r}; expected a list of (channels, kernel, stride)"
                ) from error
    return Wav2VecSpec(**known)


def _listed(node: ast.expr) -> Any:
    """The value of a list of tuples, with `+` and `*` as fairseq's arguments have them. Nothing is evaluated."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        left, right = _listed(node.left), _listed(node.right)
        return left + right if isinstance(node.op, ast.Add) else left * right
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_listed(elt) for elt in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) < 100_000:
        return node.value
    raise ValueError(f"unexpected {type(node).__name__}")
