"""Codecs against transformers' `encode` at batch size 1, and as runs write their codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel

from audiomill.config.stages import ModelConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.base import CodesWant, Utterance
from audiomill.models.checkpoint import find_checkpoint, shape_of
from tests.codec_checkpoints import CODECS, save_dac
from tests.jobs_by_hand import check_accounts, loaded, rows, run
from tests.synth import RATE, encode, noise

HOP = 320
FIXED = [16_000, 40_123, 321, 100]


@pytest.fixture(scope="session", params=sorted(CODECS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CODECS[request.param](tmp_path_factory.mktemp("codecs") / request.param)


def utterances(lengths: list[int]) -> list[Utterance]:
    return [Utterance(noise(n, seed=n), 0, 0, (str(n), None), 0, None) for n in lengths]


def alone(folder: Path, pcm: Any) -> Any:
    """codes_KF by transformers."""
    model, extractor = AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    wave = np.pad(pcm.astype(np.float32) / 32768, (0, max(0, HOP - len(pcm))))
    with torch.inference_mode():
        return (
            model.encode(extractor(wave, sampling_rate=RATE, return_tensors="pt")["input_values"])
            .audio_codes[0]
            .numpy()
        )


def own(folder: Path) -> Any:
    codebooks, entries = shape_of(find_checkpoint(ModelConfig(model=str(folder)), {})).quantizer or (0, 0)
    want = CodesWant(
        name="quantizer", source="", layer=None, num_codebooks=codebooks, num_entries=entries, num_kept=codebooks
    )
    return loaded(folder, codes=(want,))


def test_a_batch_has_the_codes_of_each_row_alone(folder: Path) -> None:
    batch = utterances(FIXED)
    for utterance, answer in zip(batch, own(folder).forward(batch), strict=True):
        (codes,) = answer.readout.codes
        assert (codes == alone(folder, utterance.pcm_T)).all()
        assert codes.shape[1] == max(1, -(-len(utterance.pcm_T) // HOP))
    assert len(np.unique(alone(folder, batch[1].pcm_T)[0])) > 4, "the test's codec says more than one thing"


def corpus(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.wav").write_bytes(encode(noise((number + 2) * RATE, number)))
    (folder / "broken.wav").write_bytes(b"no audio")
    return folder


def test_a_run_writes_a_row_a_codebook_and_the_first_ones_if_asked(folder: Path, tmp_path: Path) -> None:
    source = corpus(tmp_path / "in")
    run(source, tmp_path / "all", "encode", model=folder, canary=2)
    check_accounts(tmp_path / "all")
    found = rows(tmp_path / "all", "codes")
    whole = {name: alone(folder, noise((n + 2) * RATE, n)) for n, name in enumerate(("0.wav", "1.wav", "2.wav"))}
    source_of = {row["id"]: row["source"].rsplit("/", 1)[-1] for row in rows(tmp_path / "all", "recordings")}
    for row in found:
        assert row["codes"] == whole[source_of[row["recording_id"]]][row["codebook"]].tolist()
        assert row["num_entries"] == 32 and row["frame_rate_hz"] == pytest.approx(50.0)
    num_codebooks = len(whole["0.wav"])
    assert len(found) == 3 * num_codebooks > 3
    run(source, tmp_path / "two", "encode", model=folder, codebooks=2, part_seconds=3.0)
    coarse = rows(tmp_path / "two", "codes")
    assert [row["codes"] for row in coarse] == [row["codes"] for row in found if row["codebook"] < 2]


def test_what_a_codec_cannot_is_one_line(folder: Path, tmp_path: Path) -> None:
    source = corpus(tmp_path / "in")
    np.save(tmp_path / "km.npy", np.zeros((4, 32), np.float32))
    asked: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("encode", {"codebooks": 99}, UsageError, "--codebooks 99: quantizer has"),
        ("embed", {}, ModelError, "gives codes and no vectors"),
        ("encode", {"codebook": tmp_path / "km.npy", "codebook_layer": 1}, ModelError, "no layers to quantise"),
        ("transcribe", {}, ModelError, "needs a fine-tuned"),
    ]
    for kind, options, error, told in asked:
        with pytest.raises(error, match=told):
            run(source, tmp_path / "out", kind, model=folder, **options)


def test_another_rate_is_told_with_codecs_that_fit(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"hears 24000 Hz, and models are given 16000 Hz here; take one of 16 kHz"):
        run(corpus(tmp_path / "in"), tmp_path / "out", "encode", model=save_dac(tmp_path / "dac", sampling_rate=24_000))


def test_a_codec_without_its_feature_extractor_is_told(tmp_path: Path) -> None:
    folder = save_dac(tmp_path / "dac")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="nothing says how audio becomes features"):
        own(folder)
