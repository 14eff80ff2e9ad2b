"""wav2vec 2.0 learns from audio alone: which of several quantised frames is the hidden one.

B batch, F frames. Source: Baevski et al. 2020 (arXiv:2006.11477), section 3; `Wav2Vec2ForPreTraining` has the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiomill.config.train import TrainConfig
from audiomill.errors import ModelError
from audiomill.models.frames.inputs import FrameInputs, normalizes
from audiomill.models.frames.masks import numpy_seeded, span_mask
from audiomill.models.frames.whole import with_real_names
from audiomill.models.learner import Learner, Loss, Rows
from audiomill.models.wav2vec2.learner import save_preparation
from audiomill.text.normalize import Text

_MASK_FRAMES = 10
START_SHARE = 0.065
"""Of the frames start a mask: about half of them are hidden, as in the paper."""
_MIN_FRAMES = 8
MAX_TEMPERATURE, MIN_TEMPERATURE, TEMPERATURE_DECAY = 2.0, 0.5, 0.999995
_COLLAPSED = 2.0
"""Entries in use a codebook, below which it tells nothing any more."""


class Pretrainer(Learner):
    """See `audiomill.models.learner.Learner`; there is no text.

    Args:
        model: `Wav2Vec2ForPreTraining` on its device.
        folder: it came from.
        config: how it learns.
    """

    def __init__(self, model: Any, folder: Path, config: TrainConfig) -> None:
        self.model, self._folder, self._config = model, folder, config
        self._inputs = FrameInputs(model, None, normalizes(folder))
        self._start_share = max(config.mask_time_prob, START_SHARE)

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[str | None]:
        """Nothing, or that there are too few frames to hide some."""
        frames = self._inputs.text_frames_of((num_samples / (1 + self._config.speed_augment)).astype(np.int64))
        return ["too_short" if count < _MIN_FRAMES else None for count in frames.tolist()]

    def set_trainable(self, update: int, num_updates: int) -> None:
        """Everything learns; the quantiser's choices get sharper as it goes."""
        temperature = max(MAX_TEMPERATURE * TEMPERATURE_DECAY**update, MIN_TEMPERATURE)
        self.model.set_gumbel_temperature(temperature)

    def loss(self, rows: Rows, labels: Sequence[None], weights: NDArray[np.float32], seed: int) -> Loss:
        """Contrastive loss of the hidden frames and diversity loss of the codebooks."""
        from transformers.models.wav2vec2.modeling_wav2vec2 import _sample_negative_indices

        inputs = self._inputs(rows)
        frames_B = self._inputs.frames_B()
        shape = (len(rows), int(frames_B.max()))
        random = np.random.default_rng([seed, 5])
        mask_BF = span_mask(frames_B.tolist(), shape[1], self._start_share, _MASK_FRAMES, random, min_spans=2)
        with numpy_seeded(seed):
            negatives = _sample_negative_indices(shape, self.model.config.num_negatives, mask_time_indices=mask_BF)
        device = self.model.device
        mask = torch.from_numpy(mask_BF).to(device)
        model = self.model(
            **inputs, mask_time_indices=mask, sampled_negative_indices=torch.from_numpy(negatives).to(device)
        )
        perplexity = float(model.codevector_perplexity)
        metrics = {
            "perplexity": perplexity,
            "contrastive_loss": float(model.contrastive_loss) / max(1, int(mask_BF.sum())),
            "collapsed": float(perplexity < _COLLAPSED * self.model.config.num_codevector_groups),
        }
        return Loss(model.loss, float(mask_BF.sum()), metrics)

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder, safe_serialization=True)
        save_preparation(self._folder, folder)


def load_pretrainer(folder: Path, config: TrainConfig, texts: Sequence[Text], device: torch.device) -> Pretrainer:
    """A learner that goes on from a checkpoint, or starts from a configuration alone.

    Raises:
        ModelError: no wav2vec2.
    """
    from transformers import AutoConfig, Wav2Vec2ForPreTraining

    settings = AutoConfig.from_pretrained(folder)
    if settings.model_type != "wav2vec2":
        raise ModelError(
            f"--objective pretrain: {config.model} is a {settings.model_type}; the contrastive loss is that of wav2vec2 checkpoints"
        )
    settings.update(
        {"layerdrop": 0.0, "mask_time_prob": max(settings.mask_time_prob, START_SHARE), "apply_spec_augment": True}
    )
    if config.from_scratch:
        model = Wav2Vec2ForPreTraining(settings)
    else:
        try:
            model = Wav2Vec2ForPreTraining.from_pretrained(
                with_real_names(folder), config=settings, dtype=torch.float32
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"--model {config.model}: cannot be loaded ({error}); expected wav2vec2 weights"
            ) from error
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return Pretrainer(model.to(device), folder, config)
