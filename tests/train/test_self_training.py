"""The loop: two rounds of real training on a language of tones, killed and continued; promotions, stops, bad settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from safetensors.torch import load_file

from audiomill.config.train import FinetuneConfig, LoopConfig, TrainConfig, TrainOutputConfig
from audiomill.errors import UsageError
from audiomill.storage.fs import Place
from audiomill.train.fit.finetune import train_model
from audiomill.train.loop.self_training import _transcribe, round_config, run_self_training
from audiomill.train.loop.verdicts import best_of, decided, scored, why_ended
from tests.support.command_line import in_process
from tests.support.scale import daily
from tests.support.tone_language import save_config, write_corpus

INPUTS = ("labelled", "unlabelled", "dev", "test")
ROUNDS = daily(1, 2)
SECTIONS: dict[str, dict[str, Any]] = {
    "loop": {"rounds": ROUNDS, "start": "teacher", "patience": 3},
    "label": {"segment": "none", "consistency_samples": 2, "engine": "local", "verify_segments": 0},
    "select": {"max_expected_wer": 0.3},
    "train": {
        "max_updates": daily(30, 80),
        "evaluate_every": daily(15, 40),
        "batch_seconds": 4.0,
        "learning_rate": 1e-3,
        "mask_time_prob": 0.0,
        "save_minutes": 0.01,
    },
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tone_model: Path) -> Path:
    """Clean labelled clips, which the model to start from reads; the others are in noise: something to learn from them."""
    root = tmp_path_factory.mktemp("loop")
    write_corpus(root / "labelled", range(60), noise=0.03)
    write_corpus(root / "unlabelled", range(100, daily(130, 160)), noise=0.15)
    write_corpus(root / "dev", range(300, daily(320, 330)), noise=0.15)
    write_corpus(root / "test", range(400, daily(420, 430)), noise=0.15)
    save_config(root / "config")
    (root / "start").symlink_to(tone_model / "model" / "checkpoint")
    return root


def write_job(root: Path, name: str) -> str:
    """A job.yaml of the loop, relative to `root`."""
    job = {**{each: [str(root / each)] for each in INPUTS}, "output": str(root / name), **SECTIONS}
    job["train"] = {**SECTIONS["train"], "model": str(root / "start")}
    (root / f"{name}.yaml").write_text(yaml.safe_dump(job))
    return f"{name}.yaml"


def start(root: Path, name: str) -> subprocess.Popen[bytes]:
    """The loop as its user runs it."""
    command = [sys.executable, "-m", "audiomill", "self-train", str(root / write_job(root, name)), "--quiet"]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def whole(corpus: Path) -> Path:
    """An undisturbed loop."""
    done = in_process(corpus, "self-train", write_job(corpus, "whole"), "--quiet", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "best: round" in done.stdout and done.stderr.count("test WER") == ROUNDS + 2
    return corpus / "whole"


def metrics(folder: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"round-{number}" / "metrics.json").read_text())
    return found


@pytest.mark.timeout(400)
def test_a_round_leaves_its_config_selection_checkpoint_metrics_and_lineage(whole: Path) -> None:
    for number in range(ROUNDS + 1):
        folder, found = whole / f"round-{number}", metrics(whole, number)
        assert json.loads((folder / "config.json").read_text())["seed"] == number
        assert (folder / "training" / "checkpoint" / "model.safetensors").exists()
        low, high = found["interval"]
        assert 0 <= low <= found["wer"] <= high
        lineage = pq.read_table(folder / "lineage.parquet").to_pylist()
        pseudo = [row for row in lineage if row["labelled_by"] != "labels"]
        assert len(lineage) - len(pseudo) == 60
        if number:
            selected = pq.read_table(folder / "selection" / "selected.parquet")
            assert len(pseudo) == selected.num_rows == found["selection"]["num_kept"]
            teacher = metrics(whole, found["teacher"])
            assert {row["teacher_weights"] for row in pseudo} <= {teacher["fingerprint"]}
            assert found["selection"]["expected_wer"] <= 0.3
            assert found["promoted"] == (found["wer"] < found["teacher_wer"] and found["probability"] < 0.05)
            held = {row["source"].rsplit("/", 1)[0].rsplit("/", 1)[-1] for row in pseudo}
            assert held <= {"unlabelled"}
    assert (
        json.loads((whole / "best.json").read_text())["round"]
        == best_of([metrics(whole, n) for n in range(-1, ROUNDS + 1)])["round"]
    )
    page = (whole / "report.html").read_text()
    best = metrics(whole, json.loads((whole / "best.json").read_text())["round"])
    parts = [
        "Test WER by round",
        "95% interval",
        "Hours kept and dropped",
        "Calibration",
        *(["Labels that changed"] if ROUNDS > 1 else []),
        "<svg",
    ]
    for part in [*parts, "<audio" if best["wer"] else "none has an error"]:
        assert part in page, part


@pytest.mark.nightly
@pytest.mark.timeout(500)
def test_a_killed_loop_ends_as_an_undisturbed_one(corpus: Path, whole: Path) -> None:
    kills = [
        lambda root: list((root / "round-0" / "training" / "state").glob("update-*.pt")),
        lambda root: (root / "round-1" / "labels" / "run.json").exists(),
        lambda root: (root / "round-1" / "selection" / "selected.parquet").exists(),
        lambda root: list((root / "round-1" / "training" / "state").glob("update-*.pt")),
    ]
    for is_time in kills:
        process = start(corpus, "killed")
        deadline = time.monotonic() + 120
        while process.poll() is None and not is_time(corpus / "killed") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(corpus, "killed")
    _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err.decode()
    for number in range(ROUNDS + 1):
        ours, theirs = metrics(corpus / "killed", number), metrics(whole, number)
        for name in ("wer", "interval", "probability", "promoted", "fingerprint"):
            assert ours[name] == theirs[name], (number, name)
        weights = [
            load_file(root / f"round-{number}" / "training" / "checkpoint" / "model.safetensors")
            for root in (whole, corpus / "killed")
        ]
        assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


@pytest.mark.timeout(300)
def test_a_student_of_shuffled_labels_is_refused(corpus: Path, whole: Path, tmp_path: Path) -> None:
    best = best_of([metrics(whole, number) for number in range(-1, ROUNDS + 1)])
    selected = pq.read_table(whole / "round-1" / "selection" / "selected.parquet")
    texts = selected.column("text").to_pylist()
    at = selected.column_names.index("text")
    (tmp_path / "selection").mkdir()
    pq.write_table(
        selected.set_column(at, "text", [texts[7:] + texts[:7]]).cast(selected.schema),
        tmp_path / "selection" / "selected.parquet",
    )
    train = TrainConfig(
        model=best["checkpoint"], pseudo=str(tmp_path / "selection"), pseudo_weight=3.0, max_updates=60, batch_seconds=4.0,
        learning_rate=2e-3, mask_time_prob=0.0, device="cpu",
    )  # fmt: skip
    output = TrainOutputConfig(output=str(tmp_path / "student"), quiet=True)
    train_model(FinetuneConfig(inputs=(str(corpus / "labelled"),), train=train, output=output), Console(quiet=True))
    config = loop(corpus, tmp_path / "x")
    _transcribe(config.test, tmp_path / "test", str(tmp_path / "student" / "checkpoint"), config, Console(quiet=True))
    before = scored(whole / f"round-{best['round']}" / "test", {})
    found = decided(before, scored(tmp_path / "test", {}), 0)
    assert found.after > found.before and not found.is_better(0.05)


def loop(root: Path, output: Path, **changes: Any) -> Any:
    sections = {**SECTIONS, **changes}
    sections["train"] = {**SECTIONS["train"], "model": str(root / "config"), **changes.get("train", {})}
    return round_config(
        {**{each: (str(root / each),) for each in INPUTS}, "output": str(output), "quiet": True}, sections
    )


def test_stop_rules() -> None:
    def rounds(*promoted: bool, gain: float = 0.2) -> list[dict[str, Any]]:
        return [{"round": n, "promoted": each, "gain": gain} for n, each in enumerate((True, *promoted))]

    assert why_ended([], LoopConfig()) is None and why_ended(rounds(), LoopConfig()) is None
    assert why_ended(rounds(True), LoopConfig(rounds=3)) is None
    assert why_ended(rounds(True, True, True), LoopConfig(rounds=3)) == "3 rounds done"
    assert why_ended(rounds(True, False), LoopConfig(rounds=9)) == "1 round without a promotion"
    assert why_ended(rounds(False), LoopConfig(patience=2)) is None
    assert "below --min-gain" in str(why_ended(rounds(True, gain=0.01), LoopConfig(min_gain=0.05)))
    assert best_of(rounds(True, False))["round"] == 1


def test_when_every_label_is_dropped_the_loop_says_so_and_stops(corpus: Path, tmp_path: Path) -> None:
    """A teacher of one update writes nothing."""
    config = loop(corpus, tmp_path / "loop", loop={"rounds": 1}, train={"max_updates": 1, "from_scratch": True})
    with pytest.raises(UsageError, match=r"every segment was dropped \(.*see .*report.html"):
        run_self_training(config, Console(quiet=True))
    assert (tmp_path / "loop" / "round-1" / "selection" / "dropped.parquet").exists()
    with pytest.raises(UsageError, match=r"made with other settings \(train\)"):
        run_self_training(
            loop(corpus, tmp_path / "loop", loop={"rounds": 1}, train={"max_updates": 2, "from_scratch": True}),
            Console(quiet=True),
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": None}, "test: expected inputs"),
        ({"lable": {}}, "lable is no option here"),
        ({"train": {"dev": "x"}}, "train.dev is set by the loop"),
        ({"train": {"epoch": 3}}, "train.epoch is no option"),
        ({"loop": {"level": 2.0}}, "--level 2.0: expected a probability"),
        ({"output": "s3://b/x"}, "output: expected a local folder"),
    ],
)
def test_wrong_settings_are_told_in_one_line(
    audiomill: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    job = {**{name: ["x"] for name in INPUTS}, "output": "loop/", **change}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = audiomill("self-train", "job.yaml")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert Place(str(tmp_path / "loop")).names() == []


@pytest.mark.nightly
def test_the_last_student_may_be_a_sequence_model_and_its_teacher_s_weights_are_found_on_dev(
    corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "words.arpa").write_text(
        "\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-2\t<unk>\n0\t<s>\t0\n-0.5\t</s>\n-0.5\tabc\t0\n\n\\2-grams:\n-0.5\tabc abc\n\n\\end\\\n"
    )
    student = {
        "objective": "seq2seq",
        "vocab_size": 14,
        "max_updates": 30,
        "evaluate_every": 30,
        "batch_seconds": 20.0,
    }
    settings = {
        "model_type": "speech_to_text", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32, "conv_channels": 16, "encoder_attention_heads": 1, "decoder_attention_heads": 1,
    }  # fmt: skip
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps(settings))
    label = {**SECTIONS["label"], "beam_size": 4, "lm": str(tmp_path / "words.arpa")}
    config = loop(
        corpus, tmp_path / "loop", loop={"rounds": 1, "tune_trials": 3}, label=label,
        train={"model": str(corpus / "start"), "max_updates": 4},
        student={**student, "model": str(tmp_path / "small"), "from_scratch": True},
    )  # fmt: skip
    rounds = run_self_training(config, Console(quiet=True))
    assert [each["training"]["objective"] for each in rounds] == ["ctc", "seq2seq"]
    found = json.loads((tmp_path / "loop" / "round-1" / "tuning" / "decoder.json").read_text())
    assert found["lm"] == label["lm"] and found["beam_size"] == 4
    from transformers import Speech2TextForConditionalGeneration

    Speech2TextForConditionalGeneration.from_pretrained(rounds[1]["checkpoint"])
