"""RoBERTa learns to tell masked spans of codes from what is around them.

B batch, L tokens. Sources: RoBERTa (arXiv:1907.11692); spans as in vq-wav2vec (arXiv:1910.05453, section 5.2).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiomill.config.optimization import OptimizationConfig
from audiomill.models.codes.unit_settings import CODEBOOK, ENCODER, KEY, UnitPlan, read_plan
from audiomill.models.codes.unit_tokens import UnitVocabulary, read_vocabulary
from audiomill.models.frames.masks import span_mask
from audiomill.models.learner import Learner, Loss, Rows
from audiomill.models.vectors.kept_parts import keep
from audiomill.text.normalize import Text


class UnitLearner(Learner):
    """See `audiomill.models.learner.Learner`; rows are tokens, there is no text.

    Args:
        model: `RobertaForMaskedLM` on its device.
        vocabulary: of the codes.
        plan: of the training.
    """

    def __init__(self, model: Any, vocabulary: UnitVocabulary, plan: UnitPlan) -> None:
        self.model, self._vocabulary, self._plan = model, vocabulary, plan

    def labels(self, texts: Sequence[Text], num_samples: NDArray[np.int64]) -> list[str | None]:
        """Nothing: what is masked is the label."""
        return [None] * len(num_samples)

    def set_trainable(self, update: int, num_updates: int) -> None:
        """Everything learns from the start."""

    def loss(self, rows: Rows, labels: Sequence[None], weights: NDArray[np.float32], seed: int) -> Loss:
        """Cross-entropy of the masked tokens."""
        config, lengths = self.model.config, [len(row) for row in rows]
        special = self._vocabulary.number_of
        ids = np.full((len(rows), max(lengths) + 2), config.pad_token_id, np.int64)
        for at, row in enumerate(rows):
            ids[at, : len(row) + 2] = [config.bos_token_id, *row.tolist(), config.eos_token_id]
        random = np.random.default_rng([seed, 6])
        hidden_BL = np.zeros(ids.shape, bool)
        hidden_BL[:, 1:-1] = span_mask(
            lengths, max(lengths), self._plan.mask_start, self._plan.mask_span, random, min_spans=1
        )
        shown = np.where(hidden_BL, special["<mask>"], ids)
        device = self.model.device
        masked_BL, target_BL = torch.from_numpy(hidden_BL).to(device), torch.from_numpy(ids).to(device)
        states_BLD = self.model.roberta(
            input_ids=torch.from_numpy(shown).to(device), attention_mask=(target_BL != config.pad_token_id).long()
        ).last_hidden_state
        logits_NV = self.model.lm_head(states_BLD[masked_BL]).float()
        targets_N = target_BL[masked_BL]
        total = nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum")
        return Loss(total, float(len(targets_N)), _metrics(logits_NV, targets_N, total))

    def save(self, folder: Path) -> None:
        """As transformers has it, with what makes the codes beside it."""
        self.model.save_pretrained(folder, safe_serialization=True)
        place = folder / "config.json"
        config = json.loads(place.read_text())
        place.write_text(json.dumps({**config, KEY: self._plan.settings.as_json()}, indent=1), encoding="utf-8")
        self._vocabulary.save(folder)
        if self._plan.encoder_files is not None:
            keep(Path(self._plan.encoder_files), folder / ENCODER)
        if self._plan.codebook is not None:
            (folder / CODEBOOK).write_bytes(Path(self._plan.codebook).read_bytes())


def _metrics(logits_NV: Tensor, targets_N: Tensor, total: Tensor) -> dict[str, float]:
    right = (logits_NV.detach().argmax(-1) == targets_N).float().mean()
    mean = min(float(total.detach()) / max(1, len(targets_N)), 30.0)
    return {"accuracy": float(right), "token_perplexity": math.exp(mean)}


def load_unit_learner(folder: Path, training: OptimizationConfig, device: torch.device) -> UnitLearner:
    """A new model, by the plan and the vocabulary beside the sequences."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    plan = read_plan(folder)
    vocabulary = read_vocabulary(folder, plan.settings.num_codebooks, plan.settings.num_entries)
    number_of = vocabulary.number_of
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=plan.width,
        num_hidden_layers=plan.depth,
        num_attention_heads=plan.heads,
        intermediate_size=4 * plan.width,
        max_position_embeddings=plan.max_positions + 2,
        type_vocab_size=1,
        hidden_dropout_prob=plan.dropout,
        attention_probs_dropout_prob=plan.dropout,
        bos_token_id=number_of["<s>"],
        pad_token_id=number_of["<pad>"],
        eos_token_id=number_of["</s>"],
    )
    model = RobertaForMaskedLM(config)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return UnitLearner(model.to(device), vocabulary, plan)
