"""wav2vec and vq-wav2vec learn, their codes become the tokens of a BERT, and each of them is read by the jobs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

from audiomill.config.train import TrainOutputConfig
from audiomill.config.train_unit_lm import TrainUnitsConfig, UnitsConfig
from audiomill.errors import InputError, UsageError
from audiomill.models.wav2vec1.network import KmeansQuantizer
from audiomill.models.wav2vec1.predicting import contrastive, drawn_negatives, quantize_features, temperature
from audiomill.train.unit_lm.train_unit_lm import train_unit_model
from tests.support.jobs_by_hand import rows, run
from tests.support.scale import daily
from tests.support.tone_language import write_corpus
from tests.support.training import trained

SMALL = {
    "model_type": "audiomill_wav2vec",
    "conv_feature_layers": "[(16, 10, 5), (16, 8, 4), (16, 4, 2), (16, 4, 2), (16, 4, 2)]",
    "conv_aggregator_layers": "[(16, 3, 1), (16, 3, 1)]",
}
VQ = {**SMALL, "vq_type": "gumbel", "vq_vars": 8, "vq_groups": 2, "combine_groups": True}


def folder_of(path: Path, settings: dict[str, Any]) -> str:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(settings))
    return str(path)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("tones") / "in", range(24), with_text=False)


@pytest.fixture(scope="module")
def vq(tones: Path) -> Path:
    """A vq-wav2vec, trained for a moment, and its codes."""
    root = tones.parent
    trained(
        tones, root / "vq", model=folder_of(root / "config", VQ), objective="vq-wav2vec", max_updates=daily(12, 150),
        batch_seconds=12.0, learning_rate=2e-3,
    )  # fmt: skip
    run(tones, root / "codes", "encode", model=root / "vq" / "checkpoint", segment="none")
    return root


def test_the_loss_is_the_one_of_the_definition_frame_by_frame_and_step_by_step() -> None:
    torch.manual_seed(0)
    frames, steps, negatives = [7, 4], 3, 10
    z, h = torch.randn(2, 5, 7), torch.randn(2, 5, 7, steps)
    drawn = drawn_negatives(frames, np.random.default_rng(0))
    found = contrastive(h, z, torch.tensor(frames), torch.from_numpy(drawn))
    expected, pairs, right = 0.0, 0, 0
    for row, count in enumerate(frames):
        assert {drawn[row, i, n] for i in range(count) for n in range(negatives)} <= set(range(count))
        assert not any(drawn[row, i, n] == i for i in range(count) for n in range(negatives))
        for step in range(1, steps + 1):
            for i in range(count - step):
                said = h[row, :, i, step - 1]
                true = float(said @ z[row, :, i + step])
                false = [float(said @ z[row, :, drawn[row, i + step, n]]) for n in range(negatives)]
                expected -= math.log(1 / (1 + math.exp(-true)))
                expected -= sum(math.log(1 / (1 + math.exp(each))) for each in false)
                pairs, right = pairs + 1, right + (true > max(false))
    assert float(found.loss) == pytest.approx(expected, rel=1e-4)
    assert (found.num_pairs, found.num_right) == (pairs, right)


def test_quantizers_choose_hard_learn_through_and_tell_how_many_entries_they_use() -> None:
    torch.manual_seed(0)
    z, frames = torch.randn(2, 16, 9, requires_grad=True), torch.tensor([9, 5])
    model = loaded_network(VQ)
    found = quantize_features(model.vector_quantizer, z, frames, temperature(0.0))
    found.q_BCF.sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0, "gradients pass the hard choice"
    assert 2.0 <= found.perplexity <= 16.0 and 0 <= float(found.loss) <= 0.1
    assert temperature(0.0) == 2.0 and temperature(1.0) == pytest.approx(0.5) and temperature(0.5) == pytest.approx(1.0)
    kmeans = loaded_network({**VQ, "vq_type": "kmeans"}).vector_quantizer
    assert isinstance(kmeans, KmeansQuantizer)
    z = torch.randn(2, 16, 9, requires_grad=True)
    found = quantize_features(kmeans, z, frames, 1.0)
    ours, (_, theirs) = kmeans.projected(z, frames), kmeans.nearest(kmeans.projected(z, frames))
    kept = [(0, at) for at in range(9)] + [(1, at) for at in range(5)]
    mean = float(np.mean([((ours[r, :, f] - theirs[r, :, f]) ** 2).mean().item() for r, f in kept]))
    assert float(found.loss) == pytest.approx(1.25 * mean, rel=1e-4), "codebook and 0.25 commitment"
    assert torch.allclose(found.q_BCF, theirs, atol=1e-6)
    one = nn.Parameter(torch.zeros_like(kmeans.embedding))
    kmeans.embedding = one
    assert quantize_features(kmeans, z, frames, 1.0).perplexity == pytest.approx(2.0), (
        "one entry of each of two codebooks"
    )


def loaded_network(settings: dict[str, Any]) -> Any:
    import tempfile

    from audiomill.config.train import TrainConfig
    from audiomill.models.wav2vec1.predictive_learner import load_wav2vec_pretrainer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(folder_of(Path(name) / "c", settings))
        config = TrainConfig(from_scratch=True)
        return load_wav2vec_pretrainer(folder, config, [], torch.device("cpu"), codes=True).model


def test_what_was_learnt_is_read_as_a_folder_and_as_fairseq_s_file(tones: Path, tmp_path: Path) -> None:
    report = trained(
        tones, tmp_path / "out", model=folder_of(tmp_path / "config", SMALL), objective="auto", max_updates=daily(25, 200),
        batch_seconds=12.0, learning_rate=2e-3,
    )  # fmt: skip
    told = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").open()]
    losses = [row["loss"] for row in told if "loss" in row]
    assert report["objective"] == "wav2vec" and losses[-1] < losses[0] - 0.3
    assert 0 < report["accuracy"] < 1 and "accuracy" in (tmp_path / "out" / "report.html").read_text()
    checkpoint = tmp_path / "out" / "checkpoint"
    for name, model in (("folder", checkpoint), ("file", checkpoint / "wav2vec.pt")):
        run(tones, tmp_path / name, "embed", model=model, segment="none", dtype="fp32")
    values = [[row["values"] for row in rows(tmp_path / name, "embeddings")] for name in ("folder", "file")]
    assert len(values[0]) == 24 and values[0] == values[1]
    with pytest.raises(UsageError, match="it has no quantizer; expected --objective wav2vec"):
        trained(tones, tmp_path / "o2", model=str(checkpoint), from_scratch=False, objective="vq-wav2vec")


@pytest.mark.nightly
def test_two_workers_learn_wav2vec_as_one_does(tones: Path, tmp_path: Path) -> None:
    for name, settings, objective in (("w", SMALL, "wav2vec"), ("v", VQ, "vq-wav2vec")):
        model = folder_of(tmp_path / f"{name}-config", settings)
        options = {"model": model, "objective": objective, "max_updates": 4, "batch_seconds": 6.0}
        trained(tones, tmp_path / f"{name}1", gradient_accumulation_steps=2, **options)
        trained(tones, tmp_path / f"{name}2", workers=2, **options)
        one, two = (load_file(tmp_path / f"{name}{n}" / "checkpoint" / "model.safetensors") for n in (1, 2))
        assert max(float((one[each] - two[each]).abs().max()) for each in one) < 2e-4


def units(inputs: Any, output: Path, **options: Any) -> dict[str, Any]:
    settings = {"width": 32, "depth": 2, "heads": 2, "max_updates": 6, "batch_seconds": 20.0, "device": "cpu"}
    config = TrainUnitsConfig(
        inputs=(str(inputs),),
        units=UnitsConfig(**{**settings, **options}),
        output=TrainOutputConfig(output=str(output), quiet=True),
    )
    return train_unit_model(config, Console(quiet=True))


@pytest.mark.parametrize("deduplicate", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_a_bert_over_codes_is_plain_roberta_and_embed_reads_audio_through_it(
    vq: Path, tones: Path, tmp_path: Path, deduplicate: bool
) -> None:
    from transformers import RobertaForMaskedLM

    report = units(vq / "codes", tmp_path / "bert", deduplicate=deduplicate)
    assert report["num_clips"] == 24 and report["vocabulary_size"] > 6
    checkpoint = tmp_path / "bert" / "checkpoint"
    run(tones, tmp_path / "vectors", "embed", model=checkpoint, segment="none", dtype="fp32", layers="2")
    found = {row["segment_id"]: np.array(row["values"]) for row in rows(tmp_path / "vectors", "embeddings")}
    model = RobertaForMaskedLM.from_pretrained(checkpoint).eval()
    numbers = json.loads((checkpoint / "vocab.json").read_text())
    codes: dict[str, list[list[int]]] = {}
    for row in rows(vq / "codes", "codes"):
        codes.setdefault(row["segment_id"], []).append(row["codes"])
    for name in sorted(codes)[:3]:
        joint = [f"{a}-{b}" for a, b in zip(*codes[name], strict=True)]
        starts = [at for at, each in enumerate(joint) if not deduplicate or at == 0 or each != joint[at - 1]]
        ids = [numbers["<s>"], *(numbers[joint[at]] for at in starts), numbers["</s>"]]
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, 1:-1]
        lengths = np.diff([*starts, len(joint)])
        expected = np.repeat(hidden.numpy(), lengths, axis=0)
        assert np.abs(found[name] - expected).max() < 1e-4


@pytest.mark.nightly
def test_two_workers_learn_units_as_one_does(vq: Path, tmp_path: Path) -> None:
    units(vq / "codes", tmp_path / "one", gradient_accumulation_steps=2, batch_seconds=8.0)
    units(vq / "codes", tmp_path / "two", workers=2, batch_seconds=8.0)
    one, two = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("one", "two"))
    assert max(float((one[each] - two[each]).abs().max()) for each in one) < 2e-4


def test_codes_that_make_no_language_are_refused_with_their_numbers(vq: Path, tmp_path: Path) -> None:
    def changed(name: str, change: Any) -> Path:
        import shutil

        shutil.copytree(vq / "codes", tmp_path / name)
        for path in (tmp_path / name / "codes").glob("*.parquet"):
            table = pq.read_table(path)
            pq.write_table(pa.Table.from_pylist([change(row) for row in table.to_pylist()], table.schema), path)
        return tmp_path / name

    first = rows(vq / "codes", "codes")[0]
    with pytest.raises(InputError, match=r"code 99 in a codebook of 8 entries; expected codes below it"):
        units(
            changed("beyond", lambda row: row | {"codes": [99] * len(row["codes"])} if row == first else row),
            tmp_path / "a",
        )
    with pytest.raises(UsageError, match=r"frames with 1 different codes; the codebook is collapsed"):
        units(changed("flat", lambda row: row | {"codes": [3] * len(row["codes"])}), tmp_path / "b")
    other = changed("other", lambda row: row | {"quantizer": "km"} if row["codebook"] == 0 else row)
    with pytest.raises(InputError, match=r"codes of 2 quantizers: km of .*, quantizer of .*choose with --quantizer"):
        units(other, tmp_path / "c")
    with pytest.raises(InputError, match="no codes; expected the --output of an encode run"):
        units(tmp_path, tmp_path / "d")
    weights = vq / "vq" / "checkpoint" / "model.safetensors"
    import shutil

    shutil.copytree(vq / "vq" / "checkpoint", tmp_path / "moved")
    state = load_file(weights)
    save_file({name: each + 1 for name, each in state.items()}, tmp_path / "moved" / "model.safetensors")
    with pytest.raises(UsageError, match=r"its codes were made by weights .* expected the checkpoint that made them"):
        units(vq / "codes", tmp_path / "e", model=str(tmp_path / "moved"))
