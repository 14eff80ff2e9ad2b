"""Loads the network as a classifier of frames."""

from __future__ import annotations

from pathlib import Path

import torch

from audiomill.errors import ModelError
from audiomill.models.pyannote_segmentation.pyannet import (
    LEAST_SAMPLES,
    PYANNET_HOP,
    RECEPTIVE,
    PyanNet,
    num_speakers_of,
)
from audiomill.models.restricted_unpickler import checkpoint_tensors, loaded_into
from audiomill.models.speakers.diarizer import FrameClassifier


def load_segmentation(path: Path, device: str, root: str) -> FrameClassifier:
    """Of a file or folder; `root`: name of the tensor that the model begins with.

    Raises:
        ModelError: tensors are missing or do not fit.
    """
    tensors = checkpoint_tensors(path, root)
    num_layers = sum(name.startswith("lstm.weight_hh_l") and not name.endswith("_reverse") for name in tensors)
    try:
        speakers = num_speakers_of(tensors["classifier.weight"].shape[0])
    except ValueError as error:
        raise ModelError(f"{path}: expected a powerset of speakers, got {error}") from error
    network = loaded_into(PyanNet(num_layers, tensors["lstm.weight_hh_l0"].shape[1], *speakers), tensors, path)
    network = network.to(device)
    return FrameClassifier(network.activity, PYANNET_HOP, RECEPTIVE // 2, LEAST_SAMPLES, torch.device(device))
