"""What the training loop asks of a kind of model, and the losses that several kinds learn by.

B batch, F frames, L positions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.config.train import TrainConfig
from audiomill.models.base import SpeechModel
from audiomill.models.frames.masks import span_mask
from audiomill.text.normalize import Text

Rows = Sequence[NDArray[Any]]
"""pcm_T of each clip of a batch, int16; tokens_L where codes are learnt from."""


class Loss(NamedTuple):
    """Of one batch. `total`: sum over what is counted by `size` (weighted tokens, masked frames); `metrics`: for the log."""

    total: Tensor
    size: float
    metrics: dict[str, float]


class Learner(Protocol):
    """A model that can be trained. Labels are whatever `labels` makes of a text."""

    model: Any
    notes: tuple[str, ...] = ()
    """What its user should know before it learns."""

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[Any]:
        """Of each clip its label, or a string: the reason why it has none."""
        ...

    def set_trainable(self, update: int, num_updates: int) -> None:
        """Sets which weights learn from this update on, and what else depends on how many there will be; by default all
        learn from the start."""
        return

    def loss(self, rows: Rows, labels: Sequence[Any], weights: NDArray[np.float32], seed: int) -> Loss:
        """Of one batch; chance comes from `seed` and torch's generator, which is seeded too."""
        ...

    def transcripts(self, rows: Rows, languages: Sequence[str | None]) -> list[str]:
        """What the model writes; the model is in evaluation mode. `languages`: of the rows, where they are known."""
        raise AssertionError("what learns from audio alone has no texts")

    def save(self, folder: Path) -> None:
        """Everything that `from_pretrained` and `--model` need."""
        ...


def ctc_losses(logits_BFV: Tensor, frames_B: Tensor, labels: Sequence[Sequence[int]], blank: int) -> Tensor:
    """Negative log-likelihood of the labels of each row. Source: Graves et al. 2006."""
    device = logits_BFV.device
    return nn.functional.ctc_loss(
        logits_BFV.float().log_softmax(-1).transpose(0, 1),
        torch.tensor([token for tokens in labels for token in tokens], device=device),
        frames_B.to(device),
        torch.tensor([len(tokens) for tokens in labels], device=device),
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )


def weighted_loss(losses_B: Tensor, sizes: Sequence[int], weights: NDArray[np.float32]) -> Loss:
    """Of rows, each times its weight; `sizes`: tokens of each."""
    weights_B = torch.from_numpy(weights).to(losses_B.device)
    sizes_B = torch.tensor(sizes, device=losses_B.device)
    return Loss((losses_B * weights_B).sum(), float((sizes_B * weights_B).sum()), {})


IGNORED = -100
"""A target that is not learnt."""


def cross_entropy_loss(
    logits_BLV: Tensor, targets_BL: Tensor, weights: NDArray[np.float32], label_smoothing: float = 0.0
) -> Loss:
    """Negative log-likelihood of the targets."""
    losses_BL = nn.functional.cross_entropy(
        logits_BLV.float().transpose(1, 2),
        targets_BL,
        ignore_index=IGNORED,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return weighted_loss(losses_BL.sum(-1), (targets_BL != IGNORED).sum(-1).tolist(), weights)


def shifted_pairs(
    prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], fill: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What a decoder is shown and what it shall predict of rows of any length: inputs_BL and targets_BL.

    Args:
        prompts: that each row begins with, which are not learnt.
        texts: behind them, the end included.
        fill: token behind a row's end.
        device: where to put them.
    """
    rows = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
    longest = max(map(len, rows)) - 1
    inputs = [row[:-1] + [fill] * (longest + 1 - len(row)) for row in rows]
    targets = [
        [IGNORED] * (len(prompt) - 1) + [*text] + [IGNORED] * (longest + 1 - len(prompt) - len(text))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    return torch.tensor(inputs, device=device), torch.tensor(targets, device=device)


def time_mask(
    frames: Sequence[int], num_frames: int, share: float, span: int, random: np.random.Generator, device: torch.device
) -> Tensor:
    """mask_BF of SpecAugment: True in spans of frames, whose starts are a share of them (arXiv:1904.08779)."""
    return torch.from_numpy(span_mask(frames, num_frames, share, span, random)).to(device)


def decoded_texts(model: SpeechModel, rows: Rows, languages: Sequence[str | None]) -> list[str]:
    """Texts of clips, by the model that will be made of the checkpoint."""
    pairs = enumerate(zip(rows, languages, strict=True))
    segments = [Segment(row, 0, 0, (str(at), None), 0, language) for at, (row, language) in pairs]
    texts = [prediction.text for prediction in model.forward(segments)]
    return [transcript.text for transcript in model.transcripts(segments, texts)]


def precision_of_weights(model: Any) -> str:
    """Number format of the weights of a model of transformers."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[model.dtype]


def frozen_part(config: TrainConfig, device: torch.device) -> ModelConfig:
    """In which format something computes that does not learn."""
    precision = "fp32" if device.type == "cpu" else "bf16"
    return ModelConfig(device=str(device), precision=precision, trust_remote_code=config.trust_remote_code)
