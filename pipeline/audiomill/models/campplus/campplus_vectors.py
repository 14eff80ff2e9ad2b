"""Samples -> CAM++ vectors, with the features that the network was trained on. B batch, T samples."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from audiomill.models.campplus.campplus_network import LEAST_FRAMES, NUM_MELS, CamPlusPlus
from audiomill.models.device import one_thread
from audiomill.models.frames.fbank import HOP_SAMPLES, WINDOW_SAMPLES, KaldiFbank
from audiomill.models.restricted_unpickler import checkpoint_tensors, loaded_into
from audiomill.models.speakers.embedder import FULL_SCALE, Embedder


def load_campplus(path: Path, device: str, root: str) -> Embedder:
    """Of a file or folder; `root`: name of the tensor that the model begins with.

    Raises:
        ModelError: tensors are missing or do not fit.
    """
    tensors = checkpoint_tensors(path, root)
    width = tensors["xvector.dense.linear.weight"].shape[0]
    network = loaded_into(CamPlusPlus(width), tensors, path).to(device)
    fbank = KaldiFbank(NUM_MELS, 0.0, torch.device(device))

    def forward(pcm_BT: Tensor) -> Tensor:
        with one_thread():
            mel_BFM = fbank.log_mels(pcm_BT.double() / FULL_SCALE)
        out: Tensor = network((mel_BFM - mel_BFM.mean(1, keepdim=True)).float())
        return out

    return Embedder(forward, width, WINDOW_SAMPLES + (LEAST_FRAMES - 1) * HOP_SAMPLES, torch.device(device))
