"""Codecs against transformers' `encode` at batch size 1, at their own rates, and as runs write their codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModel

from audiomill.audio.cutting.segment import Segment
from audiomill.config.stages import ModelConfig
from audiomill.errors import ModelError, UsageError
from audiomill.models.base import CodesRequest
from audiomill.models.checkpoint import find_checkpoint, shape_of
from audiomill.models.codecs import windows
from audiomill.models.task import Shape
from tests.support.codec_checkpoints import CODECS, save_dac
from tests.support.jobs_by_hand import check_accounts, loaded, rows, run
from tests.support.synth import RATE, encode, noise

DAILY = ("encodec-48",)
SECONDS = [1.0, 2.51, 0.02, 0.006]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("codecs")
    return {name: save(made / name) for name, save in CODECS.items()}


@pytest.fixture(params=sorted(CODECS))
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


def shape(folder: Path) -> Shape:
    return shape_of(find_checkpoint(ModelConfig(model=str(folder)), {}))


def sound(folder: Path, seconds: float, seed: int) -> NDArray[np.float32]:
    """wave_TK as the codec hears it, in steps of 24 bits."""
    form = shape(folder).form
    assert form is not None
    wave = 0.1 * np.random.default_rng(seed).standard_normal((round(seconds * form.rate), form.num_channels))
    return (np.round(wave.clip(-0.9, 0.9) * 2**23) / 2**23).astype(np.float32)


def segment(folder: Path, wave_TK: NDArray[np.float32]) -> Segment:
    pcm = np.zeros(round(len(wave_TK) * float(RATE) / shape(folder).form.rate), np.int16)  # type: ignore[union-attr]
    return Segment(pcm, 0, 0, ("r", None), 0, None, waves=(wave_TK,))


def alone(folder: Path, wave_TK: NDArray[np.float32]) -> NDArray[Any]:
    """codes_KF by transformers."""
    model, extractor, found = (
        AutoModel.from_pretrained(folder).eval(),
        AutoFeatureExtractor.from_pretrained(folder),
        shape(folder),
    )
    least, num_samples = -(-found.hop // found.frames_a_hop), len(wave_TK)
    wave_TK = np.pad(wave_TK, ((0, max(0, least - len(wave_TK))), (0, 0)))
    given = extractor(
        wave_TK[:, 0] if wave_TK.shape[1] == 1 else wave_TK.T, sampling_rate=found.form.rate, return_tensors="pt"
    )  # type: ignore[union-attr]
    more = {"bandwidth": model.config.target_bandwidths[-1]} if model.config.model_type == "encodec" else {}
    with torch.inference_mode():
        codes = model.encode(given["input_values"], **more).audio_codes
    if codes.ndim == 4:  # chunks
        codes = torch.cat(list(codes), -1)
        codes = codes[..., : -(-num_samples * found.frames_a_hop // found.hop)]
    return np.asarray(codes[0])


def own(folder: Path) -> Any:
    codebooks, entries = shape(folder).quantizer or (0, 0)
    want = CodesRequest(
        name="quantizer", source="", layer=None, num_codebooks=codebooks, num_entries=entries, num_kept=codebooks
    )
    return loaded(folder, codes=(want,))


def test_a_batch_has_the_codes_of_each_row_alone(folder: Path) -> None:
    sounds = [sound(folder, seconds, number) for number, seconds in enumerate(SECONDS)]
    answers = own(folder).forward([segment(folder, each) for each in sounds])
    for wave_TK, answer in zip(sounds, answers, strict=True):
        (codes,) = answer.readout.codes
        assert (codes == alone(folder, wave_TK)).all()
    assert len(np.unique(alone(folder, sounds[1])[0])) > 4, "the test's codec says more than one thing"


OFTEN = ("dac", "encodec-48", "mimi")
"""Codecs whose layers are those of the others too."""


@pytest.mark.parametrize(
    "folder",
    [each if each in OFTEN else pytest.param(each, marks=pytest.mark.nightly) for each in sorted(CODECS)],
    indirect=True,
)
def test_codes_do_not_depend_on_the_number_of_threads(folder: Path) -> None:
    """The loudness of EnCodec's chunks did: a mean over time has other last bits in two halves."""
    model, before, found = own(folder), torch.get_num_threads(), []
    sounds = [segment(folder, sound(folder, 2.0 + number / 7, number)) for number in range(4)]
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([answer.readout for answer in model.forward(sounds)])
    finally:
        torch.set_num_threads(before)
    for one, two, three in zip(*found, strict=True):
        assert one.scales == two.scales == three.scales
        assert (one.codes[0] == two.codes[0]).all() and (one.codes[0] == three.codes[0]).all()


def test_hours_in_windows_have_the_codes_of_one_piece(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_WINDOW_S", 0.7)
    for name in ("dac", "dac-44", "encodec", "encodec-48", "mimi"):
        wave_TK = sound(folders[name], 5.333, 0)
        (answer,) = own(folders[name]).forward([segment(folders[name], wave_TK)])
        codes, expected = answer.readout.codes[0], alone(folders[name], wave_TK)
        assert codes.shape == expected.shape
        assert (codes == expected).all(), (name, np.argwhere(codes != expected)[:10], (codes != expected).sum())
        assert len(np.unique(expected[0])) > 4


def written(folder: Path, codec: Path, subtype: str = "PCM_24") -> dict[str, NDArray[np.float32]]:
    """Recordings at the codec's own rate and channels, and a broken one."""
    folder.mkdir()
    found = {}
    for number in range(3):
        wave_TK = sound(codec, number + 2.013, number)
        soundfile.write(folder / f"{number}.wav", wave_TK, shape(codec).form.rate, subtype=subtype)  # type: ignore[union-attr]
        found[f"{number}.wav"] = wave_TK
    (folder / "broken.wav").write_bytes(b"no audio")
    return found


@pytest.mark.parametrize(
    "name", [each if each in DAILY else pytest.param(each, marks=pytest.mark.nightly) for each in sorted(CODECS)]
)
def test_a_run_hears_files_at_their_own_rate_channels_and_depth(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """Codes of files of 24 bits are those of transformers, whatever the parts."""
    folder = folders[name]
    whole = {name: alone(folder, wave) for name, wave in written(tmp_path / "in", folder).items()}
    run(tmp_path / "in", tmp_path / "all", "encode", model=folder, verify_segments=2)
    check_accounts(tmp_path / "all")
    found = rows(tmp_path / "all", "codes")
    source_of = {row["id"]: row["source"].rsplit("/", 1)[-1] for row in rows(tmp_path / "all", "recordings")}
    for row in found:
        assert row["codes"] == whole[source_of[row["recording_id"]]][row["codebook"]].tolist()
        assert row["frame_rate_hz"] == pytest.approx(float(RATE / shape(folder).step))
        assert (row["scales"] is not None) == (folder.name == "encodec-48")
    assert len(found) == 3 * len(whole["0.wav"])
    run(tmp_path / "in", tmp_path / "two", "encode", model=folder, codebooks=2, part_seconds=3.0)
    coarse = rows(tmp_path / "two", "codes")
    assert [row["codes"] for row in coarse] == [row["codes"] for row in found if row["codebook"] < 2]
    assert not any(row["notes"] for row in rows(tmp_path / "all", "recordings"))


def test_codecs_that_hear_everything_say_what_their_windows_change(folders: dict[str, Path], tmp_path: Path) -> None:
    """Counted by hand: frames that two windows share, each window encoded alone by transformers."""
    wave_TK = sound(folders["xcodec"], 9.0, 0)
    soundfile.write(tmp_path / "a.wav", wave_TK, RATE, subtype="FLOAT")
    windows_of = {"segment": "fixed", "max_segment_seconds": 4.0, "chunk_overlap_seconds": 0.64, "verify_segments": 1}
    run(tmp_path / "a.wav", tmp_path / "out", "encode", model=folders["xcodec"], **windows_of)
    edges = [(row["start_s"], row["stop_s"]) for row in rows(tmp_path / "out", "segments")]
    spans = [(max(0.0, a - 0.64), min(9.0, b + 0.64)) for a, b in edges]
    found = [alone(folders["xcodec"], wave_TK[round(a * RATE) : round(b * RATE)]) for a, b in spans]
    compared = differing = 0
    for (a, b), first, (c, _), second in zip(spans, found, spans[1:], found[1:], strict=False):
        size, at = round((b - c) * 50), round((c - a) * 50)
        compared += first[:, at : at + size].size
        differing += int((first[:, at : at + size] != second[:, :size]).sum())
    told = json.loads((tmp_path / "out" / "run.json").read_text())["verification"]["not_compared"]
    assert 0 < differing < compared
    assert f"two windows gave to the same frames {differing / compared:.1%} differ" in told


def test_what_a_source_lacks_is_noted(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "low.wav").write_bytes(encode(noise(2 * 8_000, 1), 8_000))
    run(tmp_path / "low.wav", tmp_path / "out", "encode", model=folders["encodec-48"])
    (row,) = rows(tmp_path / "out", "recordings")
    assert "8000 Hz do not reach the 48000 Hz of a model: it hears nothing above 4000 Hz" in row["notes"]
    assert "one channel for a model of two: it was given twice" in row["notes"]
    assert rows(tmp_path / "out", "codes")


def test_models_of_several_rates_share_one_decode(
    folders: dict[str, Path], tmp_path: Path, audiomill: Any, wav2vec2_folder: Path
) -> None:
    """What each writes in the job is what it writes alone."""
    written(tmp_path / "in", folders["encodec-48"])
    names = ("encodec-48", "mimi", "xcodec")
    models = "".join(f"  - {{model: {folders[name]}, codes: {{codebook: quantizer}}}}\n" for name in names)
    models += f"  - {{model: {wav2vec2_folder}, embeddings: {{pool: mean}}}}\n"
    (tmp_path / "job.yaml").write_text(f"inputs: in\noutput: out\nengine: local\nmodels:\n{models}")
    done = audiomill("run", "job.yaml")
    assert done.returncode == 0, done.stderr
    check_accounts(tmp_path / "out")
    together = rows(tmp_path / "out", "codes")
    for name in names:
        run(tmp_path / "in", tmp_path / name, "encode", model=folders[name])
        assert [row for row in together if row["model"] == str(folders[name])] == rows(tmp_path / name, "codes")
    assert len(rows(tmp_path / "out", "embeddings")) == 3


def test_the_plan_tells_what_the_sound_of_a_codec_takes(
    folders: dict[str, Path], tmp_path: Path, audiomill: Any
) -> None:
    """48,000 x 2 x 4 bytes beside the 32,000 of 16 kHz."""
    (tmp_path / "a.wav").write_bytes(encode(noise(2 * RATE, 1)))
    model = f"  - {{model: {folders['encodec-48']}, codes: {{codebook: quantizer}}}}\n"
    (tmp_path / "job.yaml").write_text(f"inputs: a.wav\noutput: out\nmodels:\n{model}")
    done = audiomill("plan", "--config", "job.yaml", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (
        "models hear 48 kHz stereo: a second of audio takes 416.0 kB between the stages (others: 32.0 kB)"
        in done.stdout
    )


def test_a_bandwidth_chooses_the_codebooks(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(noise(2 * RATE, 1)))
    run(tmp_path / "a.wav", tmp_path / "out", "encode", model=folders["encodec"], bandwidth=1.0)
    assert [row["codebook"] for row in rows(tmp_path / "out", "codes")] == [0, 1], "75 frames of 6 bits a codebook"
    with pytest.raises(UsageError, match=r"--bandwidth 0\.3: one codebook of quantizer takes 0\.45 kilobits a second"):
        run(tmp_path / "a.wav", tmp_path / "no", "encode", model=folders["encodec"], bandwidth=0.3)


def test_what_a_codec_cannot_is_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(noise(2 * RATE, 1)))
    np.save(tmp_path / "km.npy", np.zeros((4, 32), np.float32))
    asked: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("encode", {"codebooks": 99}, UsageError, "--codebooks 99: quantizer has"),
        ("encode", {"codebooks": 2, "bandwidth": 1.0}, UsageError, "--bandwidth: chooses the number of codebooks"),
        ("embed", {}, ModelError, "gives codes and no vectors"),
        ("encode", {"codebook": tmp_path / "km.npy", "codebook_layer": 1}, ModelError, "no layers to quantise"),
        ("transcribe", {}, ModelError, "needs a fine-tuned"),
    ]
    for kind, options, error, told in asked:
        with pytest.raises(error, match=told):
            run(tmp_path / "a.wav", tmp_path / "out", kind, model=folders["mimi"], **options)


def test_a_codec_without_its_feature_extractor_is_told(tmp_path: Path) -> None:
    folder = save_dac(tmp_path / "dac")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="nothing says how audio becomes features"):
        own(folder)
