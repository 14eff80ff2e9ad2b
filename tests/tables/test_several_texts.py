"""Several texts of one recording in one output, and a second model that writes doubtful ones again."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiomill.errors import InputError, UsageError
from audiomill.tables.transcripts import model_agreement
from tests.support.command_line import in_process
from tests.support.encoder_checkpoints import save_parakeet
from tests.support.jobs_by_hand import check_accounts, part_files, rows, run
from tests.support.synth import RATE, encode

JOB = """
inputs: in
output: {output}
engine: local
verify_segments: 0
segment: vad
models:
{models}
"""
WITH_TEXT = "  - {{model: {model}, transcripts: {text}}}\n"


@pytest.fixture(scope="module")
def parakeet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_parakeet(tmp_path_factory.mktemp("texts") / "parakeet")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, voices: Any) -> Path:
    made = tmp_path_factory.mktemp("place")
    (made / "in").mkdir()
    pause = np.zeros(2 * RATE, np.int16)
    (made / "in" / "fox.wav").write_bytes(encode(np.concatenate([voices[1][0], pause, voices[0][0]])))
    (made / "in" / "fox.txt").write_text(f"{voices[1][1]} {voices[0][1]}")
    (made / "in" / "hello.wav").write_bytes(encode(voices[0][0]))
    (made / "in" / "silence.wav").write_bytes(encode(np.zeros(RATE, np.int16)))
    (made / "in" / "broken.wav").write_bytes(b"no audio")
    return made


def ran(place: Path, name: str, *models: tuple[Any, str]) -> subprocess.CompletedProcess[str]:
    """A job with some models that transcribe."""
    listed = "".join(WITH_TEXT.format(model=model, text=text) for model, text in models)
    (place / f"{name}.yaml").write_text(JOB.format(output=name, models=listed))
    return in_process(place, "run", f"{name}.yaml")


@pytest.fixture(scope="module")
def both(place: Path, whisper: Path, parakeet: Path) -> Path:
    """Whisper's texts in segments, those of random weights in transcripts."""
    done = ran(place, "both", (whisper, "true"), (parakeet, "{language: de}"))
    assert done.returncode == 0, done.stderr
    return place / "both"


@pytest.fixture(scope="module")
def alone(place: Path, whisper: Path, parakeet: Path) -> dict[int, dict[str, tuple[str, Any]]]:
    """Text and words of each segment, as each model writes them alone."""
    found = {}
    for number, model in ((1, whisper), (2, parakeet)):
        run(place / "in", place / f"alone{number}", model=model, segment="vad", max_segment_seconds=14.0)
        found[number] = {row["id"]: (row["text"], row["words"]) for row in rows(place / f"alone{number}", "segments")}
    return found


def test_two_models_write_into_one_output_what_each_writes_alone(
    both: Path, parakeet: Path, alone: dict[int, dict[str, tuple[str, Any]]]
) -> None:
    check_accounts(both)
    segments, others = rows(both, "segments"), rows(both, "transcripts")
    assert [(row["segment_id"], row["transcript"], row["model"]) for row in others] == [
        (segment["id"], 2, str(parakeet)) for segment in segments
    ]
    assert {row["id"]: (row["text"], row["words"]) for row in segments} == alone[1]
    assert {row["segment_id"]: (row["text"], row["words"]) for row in others} == alone[2]
    main = {row["id"]: row["text"] for row in segments}
    for row in others:
        assert row["model_agreement"] == pytest.approx(
            model_agreement(main[row["segment_id"]], row["text"], "en"), abs=1e-3
        )


def test_scores_exports_and_reports_choose_a_text(place: Path, both: Path) -> None:
    rates = {}
    for number in ("1", "2"):
        scored = in_process(place, "score", "both", "--transcript", number)
        assert scored.returncode == 0, scored.stderr
        rates[number] = json.loads((both / "scores.json").read_text())["wer"]
    assert rates["1"] < 0.2 < rates["2"]
    texts = {row["segment_id"]: row["text"] for row in rows(both, "transcripts")}
    exported = in_process(place, "export", "both", "--format", "jsonl", "--transcript", "2").stdout.splitlines()
    for recording in map(json.loads, exported):
        assert [segment["text"] for segment in recording["segments"]] == [texts[s["id"]] for s in recording["segments"]]
        assert recording["language"] == ("de" if recording["segments"] else None), "of the text that was chosen"
        assert recording["text"].split() == " ".join(segment["text"] for segment in recording["segments"]).split()
    assert in_process(place, "report", "both", "--transcript", "2").returncode == 0
    page = "".join(path.read_text() for path in (both / "report").glob("part-*.js"))
    assert all(json.dumps(text) in page for text in texts.values())
    refused = in_process(place, "export", "both", "--format", "jsonl", "--transcript", "3")
    assert refused.returncode == 2 and "--transcript 3: " in refused.stderr and "has 1, 2" in refused.stderr


@pytest.mark.nightly  # daily: two models; what a model is told changes its texts in tests/models/test_whisper.py
def test_one_model_may_write_several_texts(place: Path, whisper: Path) -> None:
    assert ran(place, "prompts", (whisper, "true"), (whisper, "{prompt: Fox}")).returncode == 0
    assert all(
        row["model_agreement"] > 0.6 and row["transcript"] == 2 for row in rows(place / "prompts", "transcripts")
    )


def test_only_the_first_text_can_be_asked_for_more(place: Path) -> None:
    done = ran(place, "more", ("fake://", "true"), ("fake://", "{consistency_samples: 1}"))
    assert done.returncode == 2 and "are for the first model that transcribes" in done.stderr


def test_agreement_of_two_texts() -> None:
    assert model_agreement("", " ", None) == 1.0 and model_agreement("a b", "", None) == 0.0
    assert (
        model_agreement("the quick fox", "the quick", "en")
        == model_agreement("the quick", "the quick fox", "en")
        == 0.6667
    )


@pytest.mark.nightly
def test_doubtful_segments_are_written_again_by_another_model_of_any_family(
    place: Path, whisper: Path, parakeet: Path, alone: dict[int, dict[str, tuple[str, Any]]]
) -> None:
    common: dict[str, Any] = {"segment": "vad", "model": parakeet, "second_pass_model": whisper}
    for name in ("all", "again"):
        run(place / "in", place / name, **common, second_pass_threshold=1.0)
    check_accounts(place / "all")
    assert part_files(place / "all") == part_files(place / "again")
    for row in rows(place / "all", "segments"):
        first, second = alone[2][row["id"]][0], alone[1][row["id"]][0]
        assert row["fallback_level"] == 5 and row["text"] == second
        assert row["first_pass_text"] == (first if first != second else None)
        assert all(row["start_s"] <= word["start_s"] <= word["stop_s"] <= row["stop_s"] for word in row["words"])
    summary = run(place / "in", place / "none", **common, second_pass_threshold=1e-9)
    assert {row["fallback_level"] for row in rows(place / "none", "segments")} == {0} and summary["num_redone"] == 0
    settled = json.loads((place / "all" / "run.json").read_text())["results"]
    assert settled["second-precision"] and settled["second-model"]


def test_what_cannot_be_a_second_model_is_told(place: Path, whisper: Path, parakeet: Path) -> None:
    for options, words in (
        (
            {"second_pass_threshold": 0.5},
            "--second-pass-threshold needs the model that writes again: add --second-pass-model",
        ),
        (
            {"second_pass_threshold": 1.5, "second_pass_model": whisper},
            "--second-pass-threshold 1.5: expected a confidence above 0, up to 1",
        ),
        (
            {"second_pass_model": parakeet},
            "for any other two models say which texts it writes again: --second-pass-threshold 0.6",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            run(place / "in", place / "out", model=whisper, **options)


@pytest.mark.nightly
def test_the_plan_tells_share_cost_and_gain(place: Path, whisper: Path, parakeet: Path) -> None:
    options = [
        "--segment",
        "vad",
        "--second-pass-model",
        str(whisper),
        "--second-pass-threshold",
        "1.0",
        "--engine",
        "local",
    ]
    done = in_process(place, "plan", "in", "--model", str(parakeet), *options, "--limit-seconds", "60")
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert re.search(
        r"The second model writes (\d+) of \1 segments of the sample again and takes \d+% of the models' time", told
    )
    assert re.search(r"WER, [\d.]+% by the first model alone", told)


def test_an_unknown_transcript_is_an_input_error(tmp_path: Path) -> None:
    from audiomill.storage.fs import Place
    from audiomill.tables.chosen import check_chosen

    with pytest.raises(InputError, match="has 1; the models of its job count from 1"):
        check_chosen(Place(str(tmp_path)), 2)
