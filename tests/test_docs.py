"""Documents cannot drift: their blocks run, their tables come from the schema, their commands parse, their links exist."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from audiomill.models.checkpoint import model_page
from audiomill.models.family import families
from audiomill.tables.outputs import DOCUMENTED
from tests.support.command_line import command_of, in_process
from tests.support.language_models import save_language_model
from tests.support.synth import save_ctc_checkpoint
from tests.support.tone_language import WORDS, write_corpus

ROOT = Path(__file__).parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of a page; those without a language are not run."""
    return BLOCK.findall(PAGES[page])


def column_tables() -> str:
    """Columns of every table, as docs/columns.md shows them."""
    found = ["# Columns\n\nMade from the schemas by `tests/test_docs.py`; every table is a folder of Parquet files.\n"]
    for name, table in DOCUMENTED.items():
        rows = [
            "| {} | {} | {} | {} |".format(
                f"`{field.name}`",
                str(field.type).split("<")[0],
                *(field.metadata[key].decode() for key in (b"unit", b"meaning")),
            )
            for field in table
        ]
        found.append(
            "\n".join([f"\n## {name}\n", "| column | type | unit | meaning |", "| --- | --- | --- | --- |", *rows])
        )
    return "\n".join(found) + "\n"


def test_column_tables_are_those_of_the_schema() -> None:
    assert PAGES["docs/columns.md"] == column_tables()


def test_the_table_of_models_is_that_of_the_families() -> None:
    assert PAGES["docs/models.md"] == model_page()
    assert all(family.facts is not None or family.scheme is not None for family in families())


def test_the_readme_is_short_and_runnable_early() -> None:
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 120
    assert next(n for n, line in enumerate(lines, 1) if "audiomill demo" in line) <= 25


def test_links_and_named_files_exist() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
        for module in re.findall(r"python -m (benchmarks\.\w+)", text):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([\w-]+)", "".join(PAGES.values())):
        assert re.search(rf"^{target}:", makefile, re.M), target


def commands(text: str) -> list[list[str]]:
    """Shell lines of a block as argument lists; comments and continuations resolved."""
    joined = text.replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in joined.splitlines() if shlex.split(line, comments=True)]


def test_every_audiomill_command_parses() -> None:
    found = 0
    for page in PAGES:
        for language, text in blocks(page):
            for words in commands(text) if language in ("", "bash") and "-->" not in text and "──" not in text else []:
                if words[0] == "audiomill":
                    job, *args = words[1:]
                    command_of(job).make_context(job, list(args))
                    found += 1
    assert found >= 20


def run_block(language: str, text: str, folder: Path) -> None:
    """Runs one block where a reader would: commands in order, Python as it stands, YAML into job.yaml."""
    if language == "yaml":
        (folder / "job.yaml").write_text(text)
        done = in_process(folder, "self-train" if "labelled:" in text else "run", "job.yaml")
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    elif language == "python":
        before = Path.cwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(ast.parse(text), "block", "exec"), {})
        finally:
            os.chdir(before)
    elif language == "bash":
        for words in commands(text):
            assert words[0] == "audiomill"
            if words[1:] == ["self-train", "job.yaml"]:
                continue  # run with its YAML
            done = in_process(folder, *words[1:])
            assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which somebody has run the demo; the hub's HuBERT is a small one of that name."""
    folder = tmp_path_factory.mktemp("reader")
    save_ctc_checkpoint(folder / "facebook" / "hubert-base-ls960", "hubert-group", num_hidden_layers=12)
    done = in_process(folder, "demo")
    assert done.returncode == 0, done.stderr
    (folder / "shown.txt").write_text(done.stdout)
    return folder


@pytest.mark.timeout(300)
def test_the_demo_transcribes_scores_and_names_what_comes_next(place: Path) -> None:
    shown = (place / "shown.txt").read_text()
    assert "quick brown fox" in shown.lower() and "not_audio" in shown
    assert float(re.findall(r"WER ([\d.]+)%", shown)[0]) < 5
    assert "demo/out/report.html" in shown and "--model demo/whisper-tiny.en" in shown
    assert (place / "demo" / "out" / "report.html").exists() and (place / "demo" / "whisper-tiny.en").is_dir()
    assert "nothing to do" in in_process(place, "demo").stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            pytest.param(f"docs/{name}.md", marks=pytest.mark.nightly)
            for name in ("transcripts", "running", "representations", "speakers", "streams")
        ),
    ],
)
def test_the_blocks_run_one_after_the_other(place: Path, page: str) -> None:
    for language, text in blocks(page):
        run_block(language, text, place)
    if page == "docs/representations.md":
        assert "data:image/png" in (place / "trace" / "index.html").read_text()
        assert list((place / "both" / "codes").glob("*.parquet"))
    if page == "docs/transcripts.md":
        assert list((place / "subtitles").glob("*.srt"))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_guides_to_training_run(tmp_path: Path, tone_model: Path) -> None:
    """In one folder, with tones for speech; the hub's checkpoint is a small one of that name that reads them."""
    write_corpus(tmp_path / "labelled", range(60))
    write_corpus(tmp_path / "dev", range(300, 330))
    write_corpus(tmp_path / "test", range(400, 430))
    write_corpus(tmp_path / "unlabelled", range(100, 160))
    (tmp_path / "facebook").mkdir()
    (tmp_path / "facebook" / "wav2vec2-base-960h").symlink_to(tone_model / "model" / "checkpoint")
    save_language_model(tmp_path / "HuggingFaceTB" / "SmolLM3-3B", "smollm3")
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    for page in ("docs/training.md", "docs/wav2vec.md"):
        for language, text in blocks(page):
            run_block(language, text, tmp_path)
    assert (tmp_path / "line" / "best.json").exists() and (tmp_path / "units" / "checkpoint").exists()
    assert (tmp_path / "loop" / "report.html").exists() and (tmp_path / "student" / "checkpoint").exists()


@pytest.mark.parametrize("kind", ["family", "shard", "table", "objective", "job"])
def test_what_an_addition_touches_is_what_the_page_says(kind: str) -> None:
    """Each listed file exists and says what the list says of it, and nobody else names the added thing."""
    (listed,) = re.findall(rf"<!-- adds: {kind} -->\n(.*?)<!-- /adds -->", PAGES["docs/architecture.md"], re.S)
    rows = re.findall(r"^- `([^`]+)`: (?:`([^`]+)`)?", listed, re.M)
    assert len(rows) >= 2
    for name, content in rows:
        text = (ROOT / name).read_text()
        assert content.split("(")[0].strip() in text, f"{name} lacks {content!r}"


def test_a_family_is_named_in_its_folder_and_one_line_alone() -> None:
    sources = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("jobs/**/*.py"), ROOT / "pyproject.toml"]
    naming: list[Any] = [path.relative_to(ROOT).as_posix() for path in sources if "unispeech" in path.read_text()]
    assert sorted(naming) == ["pipeline/audiomill/models/unispeech/family.py"]
