"""wav2vec (v1) and vq-wav2vec: against the papers' definitions, alone and in batches; checkpoints read safely."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiomill.audio.cutting.segment import Segment
from audiomill.errors import ModelError
from audiomill.models.base import CodesRequest, VectorRequest
from audiomill.models.wav2vec1.fairseq import load_fairseq, read_fairseq, shape_of_fairseq
from audiomill.models.wav2vec1.network import Aggregator, Wav2Vec, Wav2VecSpec, num_frames
from tests.support import reference_wav2vec as paper
from tests.support.jobs_by_hand import loaded, rows, run
from tests.support.synth import encode, noise

LAYERS = {
    "conv_feature_layers": "[(16, 10, 5)] + [(16, 8, 4)] + [(16, 4, 2)] * 3",
    "conv_aggregator_layers": "[(16, 2, 1), (24, 3, 1), (24, 4, 1)]",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "wav2vec": {"activation": "relu"},
    "wav2vec-large": {
        "activation": "relu",
        "log_compression": True,
        "skip_connections_agg": True,
        "skip_connections_feat": True,
    },
    "vq-gumbel": {
        "activation": "gelu",
        "vq_type": "gumbel",
        "vq_vars": 12,
        "combine_groups": True,
        "log_compression": True,
    },
    "vq-gumbel-deep": {"activation": "relu", "vq_type": "gumbel", "vq_vars": 12, "vq_depth": 2},
    "vq-kmeans": {"activation": "relu", "vq_type": "kmeans", "vq_vars": 12, "skip_connections_agg": True},
    "vq-kmeans-shared": {"activation": "relu", "vq_type": "kmeans", "vq_vars": 12, "combine_groups": True},
}
LENGTHS = [465, 625, 1_000, 4_321, 9_999]


def save(path: Path, variant: str) -> Path:
    """A checkpoint as fairseq writes it, with the training objective's tensors."""
    arguments = {
        **LAYERS,
        "residual_scale": 0.5,
        "vq_groups": 2,
        "aggregator": "cnn",
        "prediction_steps": 12,
        **VARIANTS[variant],
    }
    content = {
        "args": argparse.Namespace(**arguments),
        "model": {},
        "optimizer_history": [],
        "extra_state": {"epoch": 3},
    }
    torch.save(content | {"model": {"feature_extractor.conv_layers.0.0.weight": torch.zeros(1)}}, path)
    spec, _ = read_fairseq(path)
    torch.manual_seed(len(variant))
    model = Wav2Vec(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    state = model.state_dict()
    content["model"] = {**state, "wav2vec_predictions.project_to_steps.weight": torch.zeros(3)}
    torch.save(content, path)
    return path


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("fairseq") / "model.pt", request.param)


def reference(path: Path, pcm: Any) -> tuple[Any, Any, Any]:
    """z_FC, c_FC and codes_KF by the papers' definitions."""
    spec, state = read_fairseq(path)
    settings = {field: getattr(spec, field) for field in spec.__dataclass_fields__}
    tensors = {name: tensor.double().numpy() for name, tensor in state.items()}
    z_CF = paper.encode(tensors, settings, pcm.astype(np.float64) / 32768)
    codes, seen = (None, z_CF) if spec.vq_type == "none" else paper.quantize(tensors, settings, z_CF)
    return z_CF.T, paper.aggregate(tensors, settings, seen).T, codes


def requested(path: Path) -> dict[str, Any]:
    shape = shape_of_fairseq(path)
    codes = (
        ()
        if shape.quantizer is None
        else (CodesRequest(name="q", source="", layer=None, num_codebooks=2, num_entries=12, num_kept=2),)
    )
    return {"vectors": (VectorRequest(layer=0), VectorRequest(layer=1)), "codes": codes}


def test_a_batch_equals_the_papers_definition_row_by_row(checkpoint: Path) -> None:
    batch = [Segment(noise(n, n), 0, 0, (str(n), None), 0, None) for n in LENGTHS]
    for segment, answer in zip(batch, loaded(checkpoint, **requested(checkpoint)).forward(batch), strict=True):
        z, c, codes = reference(checkpoint, segment.pcm_T)
        for ours, theirs in zip(answer.readout.vectors, (z, c), strict=True):
            assert ours.values_ND.shape == theirs.shape
            assert np.linalg.norm(ours.values_ND - theirs) / np.linalg.norm(theirs) < 1e-4
        if codes is not None:
            assert answer.readout.codes[0].tolist() == codes.tolist()


def test_real_sizes_have_the_papers_frame_rate_and_receptive_fields() -> None:
    small = Wav2VecSpec()
    assert (small.hop, small.receptive_field) == (160, 465), "100 frames a second, about 30 ms each"
    assert small.receptive_field + 160 * 9 * 2 == 3345, "c of nine layers of width 3: about 210 ms"
    quantized = Wav2VecSpec(conv_feature_layers=(*small.conv_feature_layers, *((512, 1, 1),) * 3), vq_type="gumbel")
    assert (quantized.hop, quantized.receptive_field) == (160, 465)
    model = Wav2Vec(Wav2VecSpec(conv_aggregator_layers=tuple((512, k, 1) for k in range(2, 14)), vq_type="gumbel"))
    assert model.vector_quantizer.vars.shape == (1, 640, 256)  # type: ignore[union-attr]
    assert (
        sum(p.numel() for p in model.feature_extractor.parameters())
        + sum(p.numel() for p in model.feature_aggregator.parameters())
        > 25e6
    )


@given(st.integers(465, 60 * 16_000))
def test_frames_follow_the_formula_of_the_convolutions(num_samples: int) -> None:
    assert num_frames(Wav2VecSpec(), [num_samples]) == [(num_samples - 465) // 160 + 1]


def test_the_aggregator_sees_the_past_and_not_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Wav2VecSpec(conv_feature_layers=((8, 10, 5),), conv_aggregator_layers=((8, 2, 1), (8, 3, 1), (8, 4, 1)))
    aggregator = Aggregator(spec)
    for layer in aggregator.conv_layers:
        layer["3"] = torch.nn.Identity()  # its statistics run over time: no convolution is to blame for that
    monkeypatch.setattr("audiomill.models.wav2vec1.network.group_norm_over_own_frames", lambda x, frames, norm: norm(x))
    z = torch.randn(1, 8, 40, requires_grad=True)
    aggregator(z, torch.tensor([40]))[0, :, 20].abs().sum().backward()
    touched = z.grad[0].abs().sum(0).nonzero()[:, 0].tolist()  # type: ignore[index]
    assert touched == list(range(20 - (1 + 2 + 3), 21))


def test_checkpoints_with_more_than_tensors_and_arguments_are_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"model": {}, "args": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="holds more than tensors"):
        load_fairseq(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="expected a fairseq checkpoint"):
        load_fairseq(tmp_path / "other.pt")
    bad = {**LAYERS, "conv_feature_layers": "__import__('os').getcwd()"}
    torch.save(
        {"model": {"feature_extractor.conv_layers.0.0.weight": torch.zeros(1)}, "args": argparse.Namespace(**bad)},
        tmp_path / "code.pt",
    )
    with pytest.raises(ModelError, match="expected a list"):
        load_fairseq(tmp_path / "code.pt")


def test_jobs_give_z_c_and_codes_of_a_fairseq_file(tmp_path: Path) -> None:
    path = save(tmp_path / "vq.pt", "vq-kmeans")
    (tmp_path / "in").mkdir()
    for number, length in enumerate((3_000, 16_000, 20_011)):
        (tmp_path / "in" / f"{number}.wav").write_bytes(encode(noise(length, number)))
    run(tmp_path / "in", tmp_path / "codes", "encode", model=path)
    run(tmp_path / "in", tmp_path / "vectors", "embed", model=path, layers="c", dtype="fp32")
    codes, vectors = rows(tmp_path / "codes", "codes"), rows(tmp_path / "vectors", "embeddings")
    assert len(codes) == 6 and {row["frame_rate_hz"] for row in codes} == {100.0}
    for number, length in enumerate((3_000, 16_000, 20_011)):
        _, c, expected = reference(path, noise(length, number))
        assert [row["codes"] for row in codes[2 * number : 2 * number + 2]] == expected.tolist()
        assert np.allclose(vectors[number]["values"], c, atol=1e-4)
