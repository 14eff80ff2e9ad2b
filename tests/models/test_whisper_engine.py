"""Whisper's decoder as an engine: rows come and leave, shapes follow or stay fixed, products in int8; texts stay the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiomill.audio.cutting.segment import Segment
from audiomill.config.defaults import INT8
from audiomill.config.stages import ModelConfig
from audiomill.config.text import TranscriptConfig
from audiomill.errors import ModelError
from audiomill.models.base import RequestedOutputs
from audiomill.models.load import load_speech_model
from audiomill.models.matrix_products import FloatUnits, IntegerUnits, PackedUnits, has_packed_units, smooth_quant
from audiomill.models.precision import cpu_features, product_kind, settled_precision
from audiomill.models.seq2seq.decode_slots import CudaGraphRunner
from audiomill.models.seq2seq.hypothesis import DecodingOptions
from tests.support.jobs_by_hand import rows, run
from tests.support.scale import daily
from tests.support.synth import encode

SHORT = DecodingOptions(context="short", stops_repetition=True, decodes_trailing_speech=True)


def loaded(model: Any, precision: str) -> Any:
    features = cpu_features()
    settled = settled_precision(
        product_kind(precision), "cpu", offers_int8=True, prefers_int8=True, features=features, before=precision
    )
    config = ModelConfig(model=str(model), device="cpu", precision=settled)
    requested = RequestedOutputs(transcripts=TranscriptConfig())
    return load_speech_model(config, requested)


@pytest.fixture(scope="module")
def clips(voices: Any) -> list[Segment]:
    """Words and sentences of many lengths: contexts of 10, 15, 20 and 30 s."""
    (hello, _), (fox, _) = voices
    pause = np.zeros(6_000, np.int16)
    many = np.concatenate([fox, pause, hello, pause] * 7)
    pcms = [hello, many[: 12 * 16_000], hello[:9_000], fox, many[: 17 * 16_000], fox[8_000:], many[: 22 * 16_000]]
    pcms = pcms[: daily(4, 7)]
    return [Segment(pcm, 0, 0, (str(n), None), 0, None) for n, pcm in enumerate(pcms)]


def results(model: Any, clips: list[Segment]) -> list[Any]:
    return [[stretch.decoded for stretch in heard.chunks] for heard in model.decode(clips, SHORT)]


@pytest.fixture(scope="module")
def expected(whisper: Path, clips: list[Segment]) -> list[Any]:
    """All rows at once, in fp32."""
    return results(loaded(whisper, "fp32"), clips)


def test_in_int8_every_row_has_the_same_bits_whatever_is_beside_it(whisper: Path, clips: list[Segment]) -> None:
    model, few = loaded(whisper, INT8), clips[: daily(3, 5)]
    alone = [results(model, [clip])[0] for clip in few]
    assert results(model, few) == alone
    model._capacity = 2  # rows wait, and join others that are further on
    order = np.random.default_rng(0).permutation(len(few)).tolist()
    assert results(model, [few[i] for i in order]) == [alone[i] for i in order]


def test_the_number_format_is_settled_named_and_kept(whisper: Path, voices: Any, tmp_path: Path) -> None:
    folder, output, made = tmp_path / "in", tmp_path / "out", []
    folder.mkdir()
    for precision, name in (("int8", "fox.wav"), ("auto", "later.wav")):
        (folder / name).write_bytes(encode(voices[1][0]))
        run(folder, output, model=whisper, precision=precision)
        made.append(json.loads((output / "run.json").read_text())["results"]["precision"])
    named = {"bf16": "int8-w8a8-smooth-bf16", "vnni": "int8-w8a8-smooth"}
    assert made == [next((named[has] for has in named if has in cpu_features()), "int8-w7a8-smooth")] * 2
    first, later = ((row["text"], row["avg_logprob"]) for row in rows(output, "segments"))
    assert first == later, "the part that came later was computed as the first"
    run(folder, tmp_path / "fine", model=whisper, precision="fp32")
    (fine, _) = ((row["text"], row["avg_logprob"]) for row in rows(tmp_path / "fine", "segments"))
    assert fine[0].lower() == first[0].lower() and fine[1] != first[1]


def tokens(found: list[Any]) -> list[list[list[int]]]:
    return [[each.tokens for each in row] for row in found]


@pytest.mark.parametrize("capacity", [1, pytest.param(3, marks=pytest.mark.nightly)])
def test_rows_that_wait_and_join_get_what_they_get_at_once(
    whisper: Path, clips: list[Segment], expected: list[Any], capacity: int
) -> None:
    model = loaded(whisper, "fp32")
    assert model._capacity >= len(clips)
    model._capacity = capacity
    assert tokens(results(model, clips)) == tokens(expected)


@pytest.mark.parametrize("capacity", [2, pytest.param(8, marks=pytest.mark.nightly)])
def test_fixed_shapes_as_on_a_gpu_give_the_same_texts(
    whisper: Path, clips: list[Segment], expected: list[Any], capacity: int
) -> None:
    model = loaded(whisper, "fp32")
    model._is_fixed, model._capacity = True, capacity
    for _ in range(2):  # the second time in slots that were used before
        found = results(model, clips)
        assert tokens(found) == tokens(expected)
        ours, theirs = ([each.sum_logprob for row in rows for each in row] for rows in (found, expected))
        assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_coarser_products_change_few_words(whisper: Path, clips: list[Segment], precision: str) -> None:
    if precision == "bf16" and "bf16" not in cpu_features():
        with pytest.raises(ModelError, match="has no bf16 products"):
            loaded(whisper, precision)
        return
    model, fine, few = loaded(whisper, precision), loaded(whisper, "fp32"), [clips[0], clips[3]]
    ours, theirs = (
        [each.text.lower() for each in one.transcripts(few, one.decode(few, SHORT))] for one in (model, fine)
    )
    assert ours == theirs


@pytest.mark.parametrize("weight_max", [63, 127])
@pytest.mark.parametrize("shape", [(1, 2, 3), (17, 384, 51), (300, 1536, 40)])
def test_integer_products_have_the_same_bits_however_they_are_computed(
    shape: tuple[int, int, int], weight_max: int
) -> None:
    rows, inputs, outputs = shape
    random = torch.Generator().manual_seed(rows)
    weight_NK = torch.randint(-weight_max, weight_max + 1, (outputs, inputs), generator=random).float()
    rows_RK = torch.randint(-127, 128, (rows, inputs), generator=random).float()
    weight_NK[0], rows_RK[0] = weight_max, 127.0  # what saturates first
    scale_N = torch.rand(outputs, generator=random)
    expected = (rows_RK.double() @ weight_NK.double().T).to(torch.int32) * scale_N
    kinds: list[Any] = [IntegerUnits, FloatUnits]
    if weight_max == 63 and has_packed_units():
        kinds.append(PackedUnits)
    for kind in kinds if "vnni" in cpu_features() or rows < 300 else kinds[1:]:
        found = kind(weight_NK, scale_N)(torch.cat([rows_RK, torch.full((kind.spare_rows, inputs), 9.0)]))
        assert torch.equal(found[:rows], expected), kind


def test_a_smoothed_norm_and_its_matrix_give_what_they_gave() -> None:
    norm, x, weight_NK = torch.nn.LayerNorm(64), torch.randn(5, 64), torch.randn(100, 64)
    norm.weight.data[3], norm.bias.data[7], weight_NK[:, 9] = 40.0, 11.0, 0.0
    again, matrix_NK = smooth_quant(norm, weight_NK)
    assert torch.allclose(again(x) @ matrix_NK.T, norm(x) @ weight_NK.T, atol=1e-3)


def test_without_a_gpu_recorded_steps_are_just_run() -> None:
    calls: list[int] = []
    recorder = CudaGraphRunner(torch.device("cpu"))
    for _ in range(3):
        recorder.run("key", lambda: calls.append(1))
    assert len(calls) == 3
