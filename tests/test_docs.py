"""The README cannot drift: its blocks run, its tables come from the schema, its commands parse, its links exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audiomill import schema
from tests.command_line import command_of
from tests.synth import save_ctc_checkpoint
from tests.tone_language import WORDS, write_corpus

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "pipeline" / "train" / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.M | re.S)
GUIDE_BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", GUIDE, re.M | re.S)


def described(field: Any) -> str:
    unit, meaning = (field.metadata[key].decode() for key in (b"unit", b"meaning"))
    return f"`{field.name}`{f' [{unit}]' if unit else ''} {meaning}"


def column_tables() -> str:
    """Columns of every table, a paragraph each."""
    return "\n\n".join(f"**{name}**: {'; '.join(map(described, table))}." for name, table in schema.DOCUMENTED.items())


def test_column_tables_are_those_of_the_schema() -> None:
    (shown,) = re.findall(r"<!-- columns.*?-->\n(.*?)\n<!-- /columns -->", README, re.S)
    assert shown.strip() == column_tables()


def test_the_readme_is_short_and_runnable_early() -> None:
    lines = README.splitlines()
    assert len(lines) <= 180
    assert next(n for n, line in enumerate(lines, 1) if line.startswith("make demo")) <= 25


def test_links_and_named_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for module in re.findall(r"python -m (benchmarks\.\w+)", README):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


def commands(text: str) -> list[list[str]]:
    """Shell lines of a block as argument lists; comments and continuations resolved."""
    joined = text.replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in joined.splitlines() if shlex.split(line, comments=True)]


def test_every_audiomill_command_parses() -> None:
    found = 0
    for _, text in BLOCKS + GUIDE_BLOCKS:
        for words in commands(text) if "import " not in text and "-->" not in text else []:
            starts = [n for n, word in enumerate(words) if word.endswith("audiomill") or word == "audiomill"]
            if starts:
                job, *args = words[starts[0] + 1 :]
                command_of(job).make_context(job, [a for a in args if a != ">"])
                found += 1
    assert found >= 12


@pytest.mark.timeout(300)
def test_the_blocks_run_one_after_the_other(tmp_path: Path, whisper: Path) -> None:
    """In one folder, as a reader would; the hub's Whisper is a local folder of that name."""
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "whisper-tiny.en").symlink_to(whisper)
    save_ctc_checkpoint(tmp_path / "facebook" / "hubert-base-ls960", "hubert-group", num_hidden_layers=12)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*command: str) -> Any:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    shown = run(sys.executable, "-m", "audiomill", "demo")
    assert "quick brown fox" in shown.lower() and "not_audio" in shown and "import pyarrow.parquet" in shown
    assert float(re.findall(r"WER ([\d.]+)%", shown)[0]) < 5
    assert "nothing to do" in run(sys.executable, "-m", "audiomill", "demo")
    for language, text in BLOCKS:
        if language == "python":
            run(sys.executable, "-c", text)
        elif language == "yaml":
            (tmp_path / "job.yaml").write_text(text)
            run(sys.executable, "-m", "audiomill", "run", "job.yaml")
        elif language == "bash" and "s3://" not in text:
            for words in commands(text):
                assert words[0].endswith("audiomill")
                run(sys.executable, "-m", "audiomill", *words[1:])
    assert list((tmp_path / "subtitles").glob("*.srt"))
    assert (tmp_path / "units.txt").read_text().count("\n") == len(list((tmp_path / "subtitles").glob("*.srt")))
    assert "data:image/png" in (tmp_path / "trace" / "index.html").read_text()
    assert list((tmp_path / "both" / "codes").glob("*.parquet"))


@pytest.mark.timeout(300)
def test_the_guide_to_training_runs(tmp_path: Path, tone_model: Path) -> None:
    """In one folder, with tones for speech; the hub's checkpoint is a small one of that name that reads them."""
    write_corpus(tmp_path / "labelled", range(60))
    write_corpus(tmp_path / "dev", range(300, 330))
    write_corpus(tmp_path / "test", range(400, 430))
    write_corpus(tmp_path / "unlabelled", range(100, 160))
    (tmp_path / "facebook").mkdir()
    (tmp_path / "facebook" / "wav2vec2-base-960h").symlink_to(tone_model / "model" / "checkpoint")
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for language, text in GUIDE_BLOCKS:
        if language == "yaml":
            (tmp_path / "job.yaml").write_text(text)
        for words in commands(text) if language == "bash" else []:
            done = subprocess.run(
                [sys.executable, "-m", "audiomill", *words[1:]],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=200,
            )
            assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "loop" / "report.html").exists() and (tmp_path / "student" / "checkpoint").exists()
