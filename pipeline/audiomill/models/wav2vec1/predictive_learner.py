"""wav2vec and vq-wav2vec learn from audio alone: they tell the frames that come from others of the same recording.

B batch, T samples, C channels, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.config.train import TrainConfig
from audiomill.errors import UsageError
from audiomill.models.learner import Learner, Loss, Rows
from audiomill.models.wav2vec1.fairseq import read_checkpoint, save_checkpoint
from audiomill.models.wav2vec1.network import Wav2Vec, Wav2VecSpec, num_frames
from audiomill.models.wav2vec1.predicting import Predictor, contrastive, drawn_negatives, quantize_features, temperature
from audiomill.text.normalize import Text

_MIN_FRAMES = 3
_COLLAPSED = 2.0
"""Entries in use a codebook, below which it tells nothing any more."""


class Wav2VecPretraining(Wav2Vec):
    """With what is needed in training alone, under fairseq's names."""

    def __init__(self, spec: Wav2VecSpec) -> None:
        super().__init__(spec)
        self.wav2vec_predictions = Predictor(spec.conv_aggregator_layers[-1][0], spec.width)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class Wav2VecPretrainer(Learner):
    """See `audiomill.models.learner.Learner`; there is no text.

    Args:
        model: on its device.
        config: how it learns.
    """

    def __init__(self, model: Wav2VecPretraining, config: TrainConfig) -> None:
        self.model, self._config, self._heat = model, config, temperature(0.0)

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[str | None]:
        """Nothing, or that there are too few frames to tell one from another."""
        fastest = (num_samples / (1 + self._config.speed_augment)).astype(np.int64).tolist()
        field = self.model.spec.receptive_field
        counts = num_frames(self.model.spec, [max(field, count) for count in fastest])
        enough = [frames >= _MIN_FRAMES and most >= field for frames, most in zip(counts, fastest, strict=True)]
        return [None if each else "too_short" for each in enough]

    def set_trainable(self, update: int, num_updates: int) -> None:
        """Everything learns; choices of Gumbel's quantizer get sharper as it goes."""
        self._heat = temperature(update / num_updates)

    def loss(self, rows: Rows, labels: Sequence[None], weights: NDArray[np.float32], seed: int) -> Loss:
        """Contrastive loss of frames to come, and that of the quantizer."""
        model, device = self.model, self.model.device
        lengths = [len(row) for row in rows]
        z_BCF, frames_B = model.feature_extractor(_waveform(rows, device), torch.tensor(lengths, device=device))
        metrics: dict[str, float] = {}
        seen_BCF, extra = z_BCF, z_BCF.new_zeros(())
        if model.vector_quantizer is not None:
            result = quantize_features(model.vector_quantizer, z_BCF, frames_B, self._heat)
            seen_BCF, extra = result.q_BCF.to(z_BCF.dtype), result.loss
            few = _COLLAPSED * model.spec.vq_groups
            metrics = {"perplexity": result.perplexity, "collapsed": float(result.perplexity < few)}
        c_BCF = model.feature_aggregator(seen_BCF, frames_B)
        random = np.random.default_rng([seed, 5])
        negatives = torch.from_numpy(drawn_negatives(frames_B.tolist(), random)).to(device)
        pairs = contrastive(model.wav2vec_predictions(c_BCF), seen_BCF, frames_B, negatives)
        metrics["accuracy"] = pairs.num_right / max(1, pairs.num_pairs)
        return Loss(pairs.loss + extra * pairs.num_pairs, float(pairs.num_pairs), metrics)

    def save(self, folder: Path) -> None:
        """As `--model` takes it, and fairseq's file beside it."""
        save_checkpoint(self.model, folder)


def _waveform(rows: Rows, device: torch.device) -> Tensor:
    """wave_BT, zeros behind each row."""
    waves = [torch.from_numpy(row.astype(np.float32) / 32768.0) for row in rows]
    return nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)


def load_wav2vec_pretrainer(
    folder: Path, config: TrainConfig, texts: Sequence[Text], device: torch.device, codes: bool
) -> Wav2VecPretrainer:
    """A learner that goes on from a checkpoint, or starts from a configuration alone.

    Args:
        folder: or file.
        config: how it learns.
        texts: of the clips, which it does not need.
        device: where.
        codes: it is to have a quantizer, or none.

    Raises:
        ModelError: not a checkpoint of wav2vec, or of vq-wav2vec.
        UsageError: the objective is that of the other one.
    """
    spec, state = read_checkpoint(folder, with_weights=not config.from_scratch)
    if codes != (spec.vq_type != "none"):
        has, requested = ("a", "vq-wav2vec") if not codes else ("no", "wav2vec")
        raise UsageError(f"--model {config.model}: it has {has} quantizer; expected --objective {requested}")
    model = Wav2VecPretraining(spec)
    _start(model)
    if state:
        known = model.state_dict()
        fits = {name: each for name, each in state.items() if name in known and each.shape == known[name].shape}
        model.load_state_dict(known | fits)
    return Wav2VecPretrainer(model.to(device), config)


def _start(model: Wav2VecPretraining) -> None:
    """New weights as fairseq draws them: convolutions by He's rule, entries as its quantizers do."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight)
    quantizer = model.vector_quantizer
    if model.spec.vq_type == "gumbel":
        nn.init.uniform_(quantizer.vars)  # type: ignore[union-attr]
        for module in quantizer.modules():  # type: ignore[union-attr]
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight)
                nn.init.zeros_(module.bias)
    if model.spec.vq_type == "kmeans":
        nn.init.normal_(quantizer.embedding, std=0.01)  # type: ignore[union-attr]
