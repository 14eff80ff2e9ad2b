"""Codes back to sound: the copies are transformers' own, and their quality is what it is by construction."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModel

from audiomill.config.stages import ModelConfig
from audiomill.models.checkpoint import find_checkpoint, shape_of
from audiomill.models.codecs import decoding
from audiomill.report import original_and_copy
from audiomill.resynthesis.copies import copy_file, quality_of
from audiomill.resynthesis.quality import mel_distance_db, si_sdr_db
from audiomill.storage.fs import Place
from tests.support.codec_checkpoints import CODECS
from tests.support.jobs_by_hand import rows, run
from tests.support.synth import encode, noise

RATE = 24_000


def test_si_sdr_is_the_ratio_that_was_mixed_whatever_the_scale() -> None:
    rng = np.random.default_rng(0)
    sound, other = rng.standard_normal((2, 200_000)).astype(np.float32)
    for decibels in (-10.0, 0.0, 20.0):
        copy = 0.3 * (sound + 10 ** (-decibels / 20) * other)
        found = si_sdr_db(sound, copy)
        assert found == pytest.approx(decibels, abs=0.1)
    assert si_sdr_db(sound, -2 * sound) == 100.0
    assert si_sdr_db(np.zeros(100, np.float32), sound[:100]) is None


def test_mel_distance_is_the_change_of_level_in_decibels() -> None:
    sound = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    assert mel_distance_db(sound, sound, RATE) == 0.0
    assert mel_distance_db(sound, sound / 2, RATE) == pytest.approx(6.02, abs=0.01)
    assert mel_distance_db(sound[:100], sound[:100], RATE) == 0.0, "shorter than a window"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("codecs")
    return {name: CODECS[name](made / name) for name in ("encodec", "encodec-48", "mimi", "dac-44", "xcodec")}


def corpus(folder: Path, rate: int, channels: int) -> Path:
    folder.mkdir()
    for number in range(2):
        wave = 0.1 * np.random.default_rng(number).standard_normal((round((number + 1.3) * rate), channels))
        soundfile.write(folder / f"{number}.wav", wave, rate)
    (folder / "broken.wav").write_bytes(b"no audio")
    return folder


def theirs(folder: Path, row: dict[str, Any]) -> np.ndarray[Any, Any]:
    """transformers' sound of one codebook row's segment."""
    model = AutoModel.from_pretrained(folder).eval()
    codes = torch.tensor(row["codes"])[None]
    with torch.inference_mode():
        if model.config.model_type == "encodec":
            values = model.decode(codes[None], [None]).audio_values
        else:
            values = model.decode(audio_codes=codes).audio_values
    return np.asarray(values).reshape(-1)


@pytest.mark.parametrize(
    "name", ["encodec", *(pytest.param(each, marks=pytest.mark.nightly) for each in ("mimi", "dac-44", "xcodec"))]
)
def test_copies_are_those_of_transformers(folders: dict[str, Path], tmp_path: Path, audiomill: Any, name: str) -> None:
    rate = {"dac-44": 44_100, "xcodec": 16_000}.get(name, RATE)
    corpus(tmp_path / "in", rate, 1)
    run(tmp_path / "in", tmp_path / "units", "encode", model=folders[name])
    done = audiomill("resynthesize", "units", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 segments made again in ") and "SI-SDR" in done.stdout
    by_segment: dict[str, Any] = {}
    for row in rows(tmp_path / "units", "codes"):
        by_segment.setdefault(row["segment_id"], []).append(row["codes"])
    for row in quality_of(Place(str(tmp_path / "units" / "resynthesis"))).to_pylist():
        found, told = soundfile.read(tmp_path / "units" / "resynthesis" / row["audio"])
        assert told == rate and row["error"] is None
        expected = theirs(folders[name], {"codes": by_segment[row["segment_id"]]})
        assert np.abs(found - expected[: len(found)].clip(-1, 1)).max() < 1e-3
        assert abs(len(found) - row["duration_s"] * rate) < 1 and row["codebooks"] == len(by_segment[row["segment_id"]])
        assert -100 < row["si_sdr_db"] < 100 and row["mel_distance_db"] > 0


@pytest.mark.nightly  # daily: copies are those of transformers
def test_windows_of_long_codes_leave_no_seam(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dac-44", "encodec", "xcodec"):
        checkpoint = find_checkpoint(ModelConfig(model=str(folders[name])), {})
        decoder = decoding.load_decoder(folders[name], shape_of(checkpoint), "cpu")
        codes_KF = np.random.default_rng(0).integers(0, 32, (2, 1600))
        whole = decoder.sound(codes_KF, ())
        monkeypatch.setattr(decoding, "WINDOW_S", 5.0)
        assert np.abs(decoder.sound(codes_KF, ()) - whole).max() < 1e-5 * np.abs(whole).max()
        monkeypatch.undo()


def test_two_channels_and_loudness_come_back(folders: dict[str, Path], tmp_path: Path, audiomill: Any) -> None:
    corpus(tmp_path / "in", 48_000, 2)
    run(tmp_path / "in", tmp_path / "units", "encode", model=folders["encodec-48"])
    assert audiomill("resynthesize", "units", "--output", "copies", "--quiet").returncode == 0
    for path in (tmp_path / "copies" / "audio").iterdir():
        wave, rate = soundfile.read(path)
        assert rate == 48_000 and wave.shape[1] == 2 and abs(wave).max() > 0


def test_a_page_plays_as_much_of_a_copy_as_of_its_original(
    folders: dict[str, Path], tmp_path: Path, audiomill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec's segment may be hours long."""
    corpus(tmp_path / "in", RATE, 1)
    run(tmp_path / "in", tmp_path / "units", "encode", model=folders["encodec"])
    assert audiomill("resynthesize", "units", "--quiet").returncode == 0
    monkeypatch.setattr(original_and_copy, "WINDOW_S", 0.5)
    section = original_and_copy.copies_section(Place(str(tmp_path / "units")), 5, {})
    played = [base64.b64decode(text) for text in re.findall('base64,([^"]+)"', section)]
    assert [soundfile.info(io.BytesIO(file)).frames for file in played] == [RATE // 2] * 4


@pytest.mark.nightly
def test_a_recogniser_says_what_a_copy_loses(
    folders: dict[str, Path], tmp_path: Path, audiomill: Any, whisper: Path, voices: Any
) -> None:
    """The codec of the test has random weights: nothing is left of the words. The job's own Whisper is the recogniser."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(encode(voices[0][0]))
    (tmp_path / "job.yaml").write_text(
        f"inputs: in\noutput: out\nengine: local\ncanary: 0\nmodels:\n  - {{model: {whisper}, transcripts: true}}\n"
        f"  - {{model: {folders['mimi']}, codes: {{codebook: quantizer, deduplicate: true}}}}\n"
    )
    done = audiomill("run", "job.yaml")
    assert done.returncode == 0, done.stderr
    done = audiomill("resynthesize", "out", "--quiet")
    assert done.returncode == 0, done.stderr
    (row, *_) = quality_of(Place(str(tmp_path / "out" / "resynthesis"))).to_pylist()
    assert row["text"] == rows(tmp_path / "out", "segments")[0]["text"]
    assert row["wer"] > 0.5 and "WER of the copies" in done.stdout
    assert audiomill("report", "out").returncode == 0
    page = (tmp_path / "out" / "report.html").read_text()
    section = page[page.index('<section id="copies">') :].split("</section>")[0]
    assert section.count('<audio controls preload="none" src="data:audio/flac;base64,') == 2
    assert row["text"] in html.unescape(section)


def test_finished_parts_are_not_made_again_and_settings_are_not_mixed(
    folders: dict[str, Path], tmp_path: Path, audiomill: Any
) -> None:
    corpus(tmp_path / "in", RATE, 1)
    run(tmp_path / "in", tmp_path / "units", "encode", model=folders["encodec"], part_seconds=1.0)
    assert audiomill("resynthesize", "units", "--quiet", "--output", "copies").returncode == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "copies").rglob("*") if path.is_file()}
    parts = sorted((tmp_path / "copies" / "quality").iterdir())
    assert len(parts) > 1
    parts[0].unlink()
    kept = parts[1].stat().st_mtime_ns
    assert audiomill("resynthesize", "units", "--quiet", "--output", "copies").returncode == 0
    assert {path: path.read_bytes() for path in (tmp_path / "copies").rglob("*") if path.is_file()} == whole
    assert parts[1].stat().st_mtime_ns == kept
    done = audiomill("resynthesize", "units", "--quiet", "--output", "copies", "--codebooks", "1")
    assert done.returncode == 2 and "was made with other settings: --codebooks was None, now 1" in done.stderr
    done = audiomill("resynthesize", "units", "--quiet", "--output", "coarse", "--codebooks", "1", "--most", "1")
    assert done.stdout.startswith("1 segment made again in ")
    assert quality_of(Place(str(tmp_path / "coarse"))).column("codebooks").to_pylist() == [1]


def test_what_cannot_be_made_is_one_line(
    folders: dict[str, Path], tmp_path: Path, audiomill: Any, wav2vec2_folder: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(encode(noise(2 * 16_000, 1)))
    np.save(tmp_path / "km.npy", np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32))
    run(
        tmp_path / "a.wav",
        tmp_path / "km",
        "encode",
        model=wav2vec2_folder,
        codebook=tmp_path / "km.npy",
        codebook_layer=1,
    )
    run(tmp_path / "a.wav", tmp_path / "units", "encode", model=folders["mimi"])
    run(tmp_path / "a.wav", tmp_path / "text")
    asked = {
        ("km",): "codes of k-means and of wav2vec 2.0 have no way back to sound",
        ("text",): "no codes; expected the --output of an encode run with a codec",
        ("units", "--codec", "other"): "--codec other:",
        ("units", "--codebooks", "9", "--output", "nine"): "--codebooks 9: the output kept 4; ask for 1 to 4",
        ("units", "--recogniser", str(folders["mimi"])): "needs a fine-tuned",
        (): "INPUT is missing",
    }
    for arguments, told in asked.items():
        done = audiomill("resynthesize", *arguments, "--quiet")
        assert done.returncode in (1, 2) and told in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "nine").exists(), "nothing is claimed for what cannot be made"
    (tmp_path / "a.wav").unlink()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "other.txt").write_text("stays")
    done = audiomill("resynthesize", "units", "--quiet", "--overwrite", "--output", "mine")
    assert done.returncode == 2 and "which audiomill did not write" in done.stderr
    done = audiomill("resynthesize", "units", "--quiet", "--output", "mine")
    assert done.returncode == 0 and "1 without an original" in done.stdout
    assert (tmp_path / "mine" / "other.txt").exists()


def test_ids_of_foreign_outputs_lead_nowhere_else(tmp_path: Path) -> None:
    to = Place(str(tmp_path / "copies"))
    assert Path(copy_file(to, "../../../etc/x").url).parent == tmp_path / "copies" / "audio"
    assert copy_file(to, "0a1b-c0-0000000000").url.endswith("/audio/0a1b-c0-0000000000.flac")
