"""Memory: planned from shapes, and halved once where the plan was wrong; no segment is lost for want of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from audiomill.models.seq2seq.generation import Shapes, free_bytes, predicted_bytes, rows_that_fit
from audiomill.stages.steps.batching import is_out_of_memory
from audiomill.watch.progress import summary_lines
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import RATE, encode, noise

LARGE = Shapes(width=1280, decoder_layers=32, vocabulary=51_866, value_bytes=2)


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(7):
        (tmp_path / "in" / f"{number}.wav").write_bytes(encode(noise(RATE * (1 + number), seed=number)))
    summary = run(tmp_path / "in", tmp_path / "out", model="fake://greedy", segment="fixed")
    plain = run(tmp_path / "in", tmp_path / "plain", segment="fixed")
    texts = [[(row["id"], row["text"]) for row in rows(tmp_path / name, "segments")] for name in ("out", "plain")]
    assert texts[0] == texts[1] and len(texts[0]) == 7
    assert summary["num_halved_batches"] == 1 and plain["num_halved_batches"] == 0
    assert any("halved" in line for line in summary_lines(summary))
    assert not any("halved" in line for line in summary_lines(plain))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(text: str, expected: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) is expected


def test_as_many_rows_as_the_budget_holds() -> None:
    for budget in (1e9, 2e10, 1e11):
        rows_ = rows_that_fit(LARGE, budget, 1500, 24_000, 256)
        fits = predicted_bytes(LARGE, rows_, 1500, 24_000) <= budget
        one_more = predicted_bytes(LARGE, rows_ + 1, 1500, 24_000) > budget
        assert (fits or rows_ == 1) and (one_more or rows_ == 256)


def test_the_prediction_covers_what_a_row_holds() -> None:
    """Keys and values of a real cache, counted in tensors."""
    from audiomill.models.seq2seq.cross_attention_cache import StaticCrossCache

    class Weights:
        width, num_heads, layers = 64, 2, range(3)
        zeros = staticmethod(torch.zeros)

    slab = StaticCrossCache(Weights(), capacity=5, max_frames=100)  # type: ignore[arg-type]
    held = sum(each.nbytes for each in (*slab._keys, *slab._values))
    shapes = Shapes(width=64, decoder_layers=3, vocabulary=8, value_bytes=4)
    assert held == 5 * (shapes.row_bytes(100, 0) - shapes.row_bytes(0, 0) - 100 * 64 * 4)
    assert free_bytes(torch.device("cpu")) > 0
    assert np.sign(shapes.row_bytes(100) - shapes.row_bytes(99)) == 1
