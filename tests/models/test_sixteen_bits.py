"""Trainings whose products are in 16 bits: what they learn is what 32 bits learn, and what they write is 32 bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from audiomill.errors import RunError
from audiomill.train.fit.loss_scaling import took_step
from tests.models.test_speech_to_text import CONFIG as SEQ2SEQ
from tests.support.jobs_by_hand import run
from tests.support.tone_language import write_corpus
from tests.support.training import trained
from tests.train.test_wav2vec_training import SMALL, VQ, folder_of, units

NEAR = {"bf16": 0.05, "fp16": 0.02}
"""Share of a loss that may differ after a few updates."""


def losses(output: Path) -> list[float]:
    told = [json.loads(line) for line in (output / "metrics.jsonl").open()]
    return [row["loss"] for row in told if "loss" in row]


def learnt(tones: Path, root: Path, objective: str, precision: str) -> Path:
    output = root / f"{objective}-{precision}"
    options: dict[str, Any] = {
        "precision": precision, "max_updates": 4, "batch_seconds": 8.0, "learning_rate": 1e-3,
    }  # fmt: skip
    if objective == "units":
        units(root / "codes", output, **options)
    elif objective == "features":
        trained(tones, output, model="log-mel://", features=True, head_width=8, from_scratch=False, **options)
    else:
        settings = {"wav2vec": SMALL, "vq-wav2vec": VQ, "seq2seq": SEQ2SEQ}[objective]
        pieces = {"vocab_size": 14} if objective == "seq2seq" else {}
        model = folder_of(root / f"{output.name}-config", settings)
        trained(tones, output, model=model, objective=objective, **pieces, **options)
    return output


@pytest.mark.nightly
@pytest.mark.parametrize("objective", ["wav2vec", "vq-wav2vec", "seq2seq", "features", "units"])
def test_trainings_in_16_bits_learn_what_those_in_32_do(objective: str, tmp_path: Path) -> None:
    tones = write_corpus(tmp_path / "in", range(12))
    if objective == "units":
        vq = learnt(tones, tmp_path, "vq-wav2vec", "fp32")
        run(tones, tmp_path / "codes", "encode", model=vq / "checkpoint", segment="none")
    full = losses(learnt(tones, tmp_path, objective, "fp32"))
    for precision, near in NEAR.items():
        output = learnt(tones, tmp_path, objective, precision)
        found = losses(output)
        assert found == pytest.approx(full, rel=near) and found != full, "products were in 16 bits"
        weights = load_file(output / "checkpoint" / "model.safetensors")
        assert all(each.isfinite().all() for each in weights.values())
        assert all(each.dtype is torch.float32 for each in weights.values() if each.is_floating_point())


def test_a_step_that_overflows_is_told_and_one_that_no_scale_mends_ends_the_run() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), torch.amp.GradScaler("cpu")

    def stepped(largest: float) -> bool:
        """With a gradient that fp16 cannot hold once it is scaled beyond `largest`."""
        scale = float(scaler.scale(torch.ones(())))
        weight.grad = torch.full((2,), scale if scale <= largest else torch.inf)
        scaler.unscale_(optimizer)
        return took_step(scaler, optimizer, 7)

    assert [stepped(2.0**14) for _ in range(4)] == [False, False, True, True]
    assert weight.tolist() == [-2.0, -2.0], "the two steps that were taken"
    with pytest.raises(RunError, match="update 7: gradients are no numbers in fp16; use --precision bf16 or fp32"):
        while True:
            assert not stepped(0.0)
