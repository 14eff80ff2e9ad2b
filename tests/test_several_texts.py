"""Several texts of one recording in one output, and a second model that writes doubtful ones again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiomill.errors import InputError, UsageError
from audiomill.tables.transcripts import agreement
from tests.encoder_checkpoints import save_parakeet
from tests.jobs_by_hand import check_accounts, part_files, rows, run
from tests.synth import RATE, encode

JOB = """
inputs: in
output: {output}
engine: local
canary: 0
segment: vad
models:
{models}
"""
WITH_TEXT = "  - {{model: {model}, transcripts: {text}}}\n"


@pytest.fixture(scope="module")
def parakeet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_parakeet(tmp_path_factory.mktemp("texts") / "parakeet")


@pytest.fixture
def place(tmp_path: Path, voices: Any) -> Path:
    (tmp_path / "in").mkdir()
    pause = np.zeros(2 * RATE, np.int16)
    (tmp_path / "in" / "fox.wav").write_bytes(encode(np.concatenate([voices[1][0], pause, voices[0][0]])))
    (tmp_path / "in" / "fox.txt").write_text(f"{voices[1][1]} {voices[0][1]}")
    (tmp_path / "in" / "hello.wav").write_bytes(encode(voices[0][0]))
    (tmp_path / "in" / "silence.wav").write_bytes(encode(np.zeros(RATE, np.int16)))
    (tmp_path / "in" / "broken.wav").write_bytes(b"no audio")
    return tmp_path


def written(place: Path, name: str, *models: tuple[Any, str]) -> str:
    listed = "".join(WITH_TEXT.format(model=model, text=text) for model, text in models)
    (place / f"{name}.yaml").write_text(JOB.format(output=name, models=listed))
    return f"{name}.yaml"


def test_two_models_write_into_one_output_what_each_writes_alone(
    place: Path, audiomill: Any, whisper: Path, parakeet: Path
) -> None:
    done = audiomill("run", written(place, "out", (whisper, "true"), (parakeet, "true"), (whisper, "{prompt: Fox}")))
    assert done.returncode == 0, done.stderr
    check_accounts(place / "out")
    segments, others = rows(place / "out", "segments"), rows(place / "out", "transcripts")
    assert [(row["segment_id"], row["transcript"]) for row in others] == [
        (segment["id"], number) for segment in segments for number in (2, 3)
    ]
    assert {row["transcript"]: row["model"] for row in others} == {2: str(parakeet), 3: str(whisper)}
    for number, model in ((1, whisper), (2, parakeet)):
        assert audiomill("run", written(place, f"alone{number}", (model, "true"))).returncode == 0
        expected = {row["id"]: (row["text"], row["words"]) for row in rows(place / f"alone{number}", "segments")}
        ours = (
            segments if number == 1 else [{**row, "id": row["segment_id"]} for row in others if row["transcript"] == 2]
        )
        assert {row["id"]: (row["text"], row["words"]) for row in ours} == expected
    main = {row["id"]: row["text"] for row in segments}
    for row in others:
        assert row["agreement"] == pytest.approx(agreement(main[row["segment_id"]], row["text"], "en"), abs=1e-3)
    assert all(row["agreement"] > 0.6 for row in others if row["transcript"] == 3)
    assert "nothing to do" in audiomill("run", "out.yaml").stdout


def test_scores_exports_and_reports_choose_a_text(place: Path, audiomill: Any, whisper: Path, parakeet: Path) -> None:
    assert audiomill("run", written(place, "out", (parakeet, "true"), (whisper, "true"))).returncode == 0
    rates = {}
    for number in ("1", "2"):
        scored = audiomill("score", "out", "--transcript", number)
        assert scored.returncode == 0, scored.stderr
        rates[number] = json.loads((place / "out" / "scores.json").read_text())["wer"]
    assert rates["2"] < 0.2 < rates["1"]
    exported = audiomill("export", "out", "--format", "jsonl", "--transcript", "2").stdout.splitlines()
    by_name = {Path(row["source"]).name: row for row in map(json.loads, exported)}
    assert "fox" in by_name["fox.wav"]["text"].lower() and by_name["silence.wav"]["text"] == ""
    assert "fox" in by_name["fox.wav"]["segments"][0]["text"].lower()
    assert audiomill("report", "out", "--transcript", "2").returncode == 0
    page = "".join(path.read_text() for path in (place / "out" / "report").glob("part-*.js"))
    assert "fox" in page.lower()
    refused = audiomill("export", "out", "--format", "jsonl", "--transcript", "3")
    assert refused.returncode == 2 and "--transcript 3: " in refused.stderr and "has 1, 2" in refused.stderr


def test_only_the_first_text_can_be_asked_for_more(place: Path, audiomill: Any) -> None:
    done = audiomill("run", written(place, "out", ("fake://", "true"), ("fake://", "{agreement: 1}")))
    assert done.returncode == 2 and "are for the first model that transcribes" in done.stderr


def test_agreement_of_two_texts() -> None:
    assert agreement("", " ", None) == 1.0 and agreement("a b", "", None) == 0.0
    assert agreement("the quick fox", "the quick", "en") == agreement("the quick", "the quick fox", "en") == 0.6667


def test_doubtful_segments_are_written_again_by_another_model_of_any_family(
    place: Path, whisper: Path, parakeet: Path
) -> None:
    common: dict[str, Any] = {"segment": "vad", "model": parakeet}
    run(place / "in", place / "whisper", model=whisper, segment="vad")
    run(place / "in", place / "first", **common, max_segment_seconds=14.0)
    for name in ("all", "again"):
        run(place / "in", place / name, **common, second_model=whisper, redo_below=1.0)
    check_accounts(place / "all")
    assert part_files(place / "all") == part_files(place / "again")
    texts = {row["id"]: row["text"] for row in rows(place / "whisper", "segments")}
    first = {row["id"]: row["text"] for row in rows(place / "first", "segments")}
    for row in rows(place / "all", "segments"):
        assert row["rung"] == 5 and row["text"] == texts[row["id"]]
        assert row["first_text"] == (first[row["id"]] if first[row["id"]] != row["text"] else None)
        assert all(row["start_s"] <= word["start_s"] <= word["stop_s"] <= row["stop_s"] for word in row["words"])
    summary = run(place / "in", place / "none", **common, second_model=whisper, redo_below=1e-9)
    assert {row["rung"] for row in rows(place / "none", "segments")} == {0} and summary["num_redone"] == 0
    settled = json.loads((place / "all" / "run.json").read_text())["results"]
    assert settled["second-precision"] and settled["second-model"]


def test_what_cannot_be_a_second_model_is_told(place: Path, whisper: Path, parakeet: Path) -> None:
    for options, words in (
        ({"redo_below": 0.5}, "--redo-below needs the model that writes again: add --second-model"),
        ({"redo_below": 1.5, "second_model": whisper}, "--redo-below 1.5: expected a confidence above 0, up to 1"),
        ({"second_model": parakeet}, "for any other two models say which texts it writes again: --redo-below 0.6"),
    ):
        with pytest.raises(UsageError, match=words):
            run(place / "in", place / "out", model=whisper, **options)


def test_the_plan_tells_share_cost_and_gain(place: Path, audiomill: Any, whisper: Path, parakeet: Path) -> None:
    options = ["--segment", "vad", "--second-model", str(whisper), "--redo-below", "1.0", "--engine", "local"]
    done = audiomill("plan", "in", "--model", str(parakeet), *options, "--limit-seconds", "60")
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
