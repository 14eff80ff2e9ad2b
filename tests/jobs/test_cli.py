"""The command line as a user meets it: every wrong turn is one line that names the fix, with the right exit code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from audiomill.config.fields import build, flag, flat_fields
from audiomill.config.jobs import TranscribeConfig
from audiomill.errors import InputError
from audiomill.sources.listing import list_inputs
from audiomill.storage.fs import Place
from audiomill_jobs.main import describe_failure
from tests.support import corpus
from tests.support.synth import encode

WRONG = {
    "no input": (["transcribe", "--output", "o"], "INPUT is missing"),
    "no output": (["transcribe", "in"], "--output is missing"),
    "missing path": (["transcribe", "nowhere", "--output", "o", "--model", "fake://"], "no such file or folder"),
    "unknown option": (["transcribe", "in", "--outptu", "o"], "--outptu"),
    "unknown job": (["transcrbe", "in"], "No such command"),
    "bad choice": (["transcribe", "in", "--output", "o", "--segment", "maybe"], "vad"),
    "bad number": (["transcribe", "in", "--output", "o", "--part-seconds", "-3"], "above 0"),
    "bad device": (["transcribe", "in", "--output", "o", "--device", "tpu"], "expected auto, cpu, cuda"),
    "no model": (["transcribe", "in", "--output", "o", "--model", "./missing"], "no such folder"),
    "empty model": (["transcribe", "in", "--output", "o", "--model", "in"], "no weights found"),
    "language": (
        ["transcribe", "in", "--output", "o", "--engine", "local", "--language", "de", "--model", "WHISPER"],
        "English-only",
    ),
    "bad json": (["transcribe", "in", "--output", "o", "--storage-options", "x=y"], "JSON object"),
    "no yaml": (["transcribe", "in", "--config", "none.yaml"], "cannot be read"),
    "wrong yaml": (["transcribe", "in", "--config", "wrong.yaml"], "partseconds is no option"),
    "no run": (["inspect", "in"], "no plan.parquet"),
    "no references": (["score", "in", "--references", "r.csv"], "no finished recordings"),
    "no scheme": (["transcribe", "foo://x", "--output", "o", "--model", "fake://"], "unknown kind of URL"),
    "memory": (
        ["transcribe", "memory://x", "--output", "o", "--model", "fake://", "--engine", "ray"],
        "--engine local",
    ),
}


@pytest.fixture
def workplace(tmp_path: Path, voices: Any) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "fox.wav").write_bytes(encode(voices[1][0]))
    (tmp_path / "wrong.yaml").write_text("partseconds: 3\n")
    return tmp_path


@pytest.mark.parametrize("name", sorted(WRONG))
def test_wrong_usage_is_one_line_and_exit_code_2(audiomill: Any, workplace: Path, whisper: Path, name: str) -> None:
    args, words = WRONG[name]
    done = audiomill(*(str(whisper) if a == "WHISPER" else a for a in args))
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and words in done.stderr and "Traceback" not in done.stderr


def test_a_cluster_that_is_not_there_is_told_in_one_line(audiomill_process: Any, workplace: Path) -> None:
    done = audiomill_process("transcribe", "in", "--output", "o", "--model", "fake://", "--ray-address", "127.0.0.1:1")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "cannot connect" in done.stderr


def test_names_are_printed_where_the_terminal_cannot_show_them(audiomill_process: Any, workplace: Path) -> None:
    (workplace / "in" / "fox.wav").rename(workplace / "in" / "\u2692 \u4e2d.wav")
    base = audiomill_process("transcribe", "in", "--output", "o", "--model", "fake://", PYTHONIOENCODING="ascii")
    shown = audiomill_process("inspect", "o", PYTHONIOENCODING="ascii")
    assert base.returncode == shown.returncode == 0, base.stderr + shown.stderr
    assert "\\u2692 \\u4e2d.wav" in shown.stdout


def test_where_rays_sockets_have_no_room_the_fix_is_named(audiomill_process: Any, workplace: Path) -> None:
    folder = workplace / ("x" * 90)
    folder.mkdir()
    done = audiomill_process(
        "transcribe", "in", "--output", "o", "--model", "fake://", "--engine", "ray", TMPDIR=str(folder)
    )
    assert done.returncode == 2 and "set TMPDIR=/tmp" in done.stderr and "Traceback" not in done.stderr


def test_references_of_other_recordings_are_told(audiomill: Any, workplace: Path) -> None:
    (workplace / "r.csv").write_text("path,text\nother.wav,hello\n")
    assert audiomill("transcribe", "in", "--output", "o", "--model", "fake://").returncode == 0
    done = audiomill("score", "o", "--references", "r.csv")
    assert done.returncode and "r.csv: 1 texts, none of a recording here" in done.stderr


def test_a_whole_session(audiomill: Any, workplace: Path, whisper: Path) -> None:
    """Transcribe, rerun, refuse, overwrite, inspect, score, export: what a first day looks like."""
    base = ["transcribe", "in", "--output", "out", "--model", str(whisper), "--engine", "local"]
    first = audiomill(*base)
    assert first.returncode == 0 and "1 recording," in first.stdout, first.stderr
    assert "3 s of 3 s, parts 1/1" in first.stderr  # a run this short may have no speed to tell
    assert "nothing to do" in audiomill(*base).stdout
    refused = audiomill(*base, "--segment", "fixed")
    assert refused.returncode == 2 and "--segment was 'vad', now 'fixed'" in refused.stderr
    assert audiomill(*base, "--segment", "fixed", "--overwrite").returncode == 0
    assert "out: 1/1 parts, complete" in audiomill("inspect", "out").stdout
    (workplace / "refs.csv").write_text("file,text\nfox.wav,The quick brown fox jumps over the lazy cat.\n")
    scored = audiomill("score", "out", "--references", "refs.csv")
    assert "WER 11.11%" in scored.stdout and "1 substituted, 0 deleted, 0 inserted" in scored.stdout
    assert json.loads((workplace / "out" / "scores.json").read_text())["num_words"] == 9
    assert audiomill("export", "out", "--format", "srt").returncode == 0
    srt = (workplace / "out" / "export" / "fox.srt").read_text()
    assert srt.startswith("1\n00:00:00,") and "quick brown fox" in srt.lower()
    lines = audiomill("export", "out", "--format", "jsonl").stdout.splitlines()
    assert "quick brown fox" in json.loads(lines[0])["segments"][0]["text"].lower()


def test_strict_exits_with_3_on_rejections(audiomill: Any, workplace: Path) -> None:
    (workplace / "in" / "bad.wav").write_bytes(b"no")
    args = ["transcribe", "in", "--output", "out", "--model", "fake://", "--engine", "local"]
    assert audiomill(*args).returncode == 0
    assert audiomill(*args, "--strict").returncode == 3
    listed = audiomill("inspect", "out").stdout
    assert "1 decode: not_audio" in listed and "bad.wav" in listed


def test_inspect_lists_every_reason(audiomill: Any, tmp_path: Path, voices: Any) -> None:
    corpus.write_broken(tmp_path / "in", voices[1][0])
    audiomill("transcribe", "in", "--output", "out", "--model", "fake://", "--engine", "local")
    shown = audiomill("inspect", "out", "--all").stdout
    assert all(name in shown and reason in shown for name, reason in corpus.REASONS.items())
    assert "truncated" in shown and "cut.wav" in shown


def test_flags_yaml_and_library_have_the_same_names_and_defaults(audiomill: Any, workplace: Path) -> None:
    shown = audiomill("transcribe", "--help-all").stdout
    for field in flat_fields(TranscribeConfig):
        assert f"--{flag(field.name)}" in shown
    (workplace / "job.yaml").write_text(
        "inputs: in\noutput: from-yaml\nmodel: fake://\nengine: local\npart-seconds: 77\n"
    )
    assert audiomill("transcribe", "--config", "job.yaml", "--output", "from-flag").returncode == 0
    assert (workplace / "from-flag" / "_SUCCESS").exists() and not (workplace / "from-yaml").exists()
    bare = build(TranscribeConfig, {"inputs": ("x",), "output": "y"})
    for field in flat_fields(TranscribeConfig):
        if field.default is not dataclasses.MISSING and field.name != "output":
            parts = [each for part in vars(bare).values() for each in (part, getattr(part, "decoder", None))]
            holder = next(part for part in parts if hasattr(part, field.name))
            assert getattr(holder, field.name) == field.default


def test_nothing_secret_is_written(audiomill: Any, workplace: Path) -> None:
    secret = "hunter2-not-to-be-seen"
    options = json.dumps({"key": "me", "secret": secret})
    done = audiomill(
        "transcribe", "in", "--output", "out", "--model", "fake://", "--engine", "local", "--storage-options", options
    )
    assert done.returncode == 0 and secret not in done.stdout + done.stderr
    for path in (workplace / "out").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


def test_version_and_help(audiomill: Any) -> None:
    assert audiomill("--version").stdout.startswith("audiomill 0.")
    shown = audiomill("--help").stdout
    assert all(job in shown for job in ("transcribe", "inspect", "score", "export", "demo"))


@pytest.mark.parametrize("library", ["aiohttp", "botocore", "httpx2", "huggingface_hub"])
def test_a_store_that_cannot_be_reached_is_named_as_such(library: str) -> None:
    error = type("ConnectError", (Exception,), {"__module__": f"{library}._exceptions"})("Name or service not known")
    told = describe_failure(error)
    assert told is not None and "cannot be reached (Name or service not known)" in told and "network" in told
    assert describe_failure(ValueError("ours")) is None


def test_the_hub_is_not_asked_where_the_user_forbids_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = Place("hf://datasets/nobody/nothing", {})
    monkeypatch.setattr(type(place.fs), "isfile", lambda *_: False)
    monkeypatch.setattr(type(place.fs), "isdir", lambda *_: False)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        list_inputs((place.url,), {}, None, "/none")
