"""What people install: a clean wheel, a console script, help that shows how, and no colour where nobody sees it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import site
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import audiomill
from tests.command_line import JOB_NAMES
from tests.synth import encode

ROOT = Path(__file__).parent.parent
ESCAPE = "\x1b["


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the files of the project alone."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "pipeline", "jobs"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.timeout(300)
def test_the_wheel_holds_the_program_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name == f"audiomill-{audiomill.__version__}-py3-none-any.whl"
    tops = {name.split("/")[0] for name in names}
    assert tops == {"pipeline", "jobs", f"audiomill-{audiomill.__version__}.dist-info"}
    for needed in ("pipeline/report/report.js", "pipeline/report/report.css", "pipeline/py.typed", "jobs/main.py"):
        assert needed in names
    assert not [name for name in names if "test" in name.lower() or name.endswith(".pyc")]
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.timeout(300)
def test_it_works_where_nothing_of_the_project_is_at_hand(wheel: Path, tmp_path: Path) -> None:
    """In a new environment; its dependencies are those of this one, which takes minutes less."""
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, timeout=120, capture_output=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = environment / "bin" / "audiomill"
    told = subprocess.run(
        [str(script), "--version"], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60
    )
    assert told.stdout == f"audiomill {audiomill.__version__}\n", told.stderr
    code = "import pipeline, jobs; print(audiomill.__file__); print(audiomill.jobs.__file__)"
    where = subprocess.run(
        [str(python), "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60
    )
    assert all(line.startswith(str(environment)) for line in where.stdout.splitlines()), where.stdout
    (tmp_path / "a.wav").write_bytes(b"")
    run = [str(script), "transcribe", "a.wav", "--model", "fake://", "--engine", "local", "--output", "out"]
    done = subprocess.run(run, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and (tmp_path / "out" / "report.html").exists(), done.stderr


def test_every_job_explains_itself_with_an_example(audiomill: Any) -> None:
    for name, job in JOB_NAMES.items():
        text = job.get_help(job.make_context(name, [], resilient_parsing=True))
        assert job.help and len(job.help) > 40, name
        assert re.search(rf"audiomill {name}\b|Example|job\.yaml", text), f"{name} --help shows no example"


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the command line writes where it finds a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "audiomill", *arguments]
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        command,
        stdout=theirs,
        stderr=theirs,
        env={**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    found = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(ours, 65_536):
            found += chunk
    os.close(ours)
    assert process.wait() == 0, found.decode()
    return found.decode()


def test_pipes_and_no_color_get_no_colours(audiomill: Any, tmp_path: Path, voices: Any) -> None:
    (tmp_path / "a.wav").write_bytes(encode(voices[0][0]))
    (tmp_path / "b.wav").write_bytes(b"no audio")
    common = ("--model", "fake://", "--engine", "local", "--output", str(tmp_path / "out"))
    for arguments in (
        ["--help"],
        ["doctor"],
        ["transcribe", str(tmp_path / "a.wav"), str(tmp_path / "b.wav"), *common],
    ):
        done = audiomill(*arguments)
        assert done.returncode == 0 and ESCAPE not in done.stdout + done.stderr
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    assert ESCAPE in on_a_terminal("inspect", str(tmp_path / "out")), "a terminal gets bold headings"
    plain = on_a_terminal("inspect", str(tmp_path / "out"), NO_COLOR="1")
    assert not colour.search(plain) and "not_audio" in plain


def test_doctor_finds_what_works_and_says_what_does_not(audiomill: Any, s3_endpoint: str, tmp_path: Path) -> None:
    done = audiomill("doctor", str(tmp_path))
    assert done.returncode == 0, done.stdout
    for name in (
        "audiomill",
        "torch",
        "cores",
        "GPU",
        "libsndfile",
        "FFmpeg's libavcodec",
        "voice activity",
        str(tmp_path),
    ):
        assert re.search(rf"^{re.escape(name)}: ", done.stdout, re.M), name
    assert audiomill("doctor", "--check").stdout == ""
    import fsspec

    fs = fsspec.filesystem("s3", endpoint_url=s3_endpoint)
    if not fs.exists("doctored"):
        fs.mkdir("doctored")
    options = f'{{"endpoint_url": "{s3_endpoint}", "key": "testing", "secret": "s3cr3tvalue"}}'
    reached = audiomill("doctor", "s3://doctored/", "--storage-options", options)
    assert reached.returncode == 0 and "s3://doctored/: reached" in reached.stdout, reached.stdout
    assert "s3cr3tvalue" not in reached.stdout
    wrong = audiomill("doctor", "s3://nobody-has-this/x", "--check", "--storage-options", options)
    assert wrong.returncode == 1 and len(wrong.stdout.splitlines()) == 1 and "a problem" in wrong.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_jobs_options_and_choices(audiomill: Any, shell: str) -> None:
    assert "_AUDIOMILL_COMPLETE" in audiomill("completion", shell).stdout
    if shell == "bash":
        jobs = audiomill(_AUDIOMILL_COMPLETE="bash_complete", COMP_WORDS="audiomill wa", COMP_CWORD="1")
        assert jobs.stdout.strip() == "plain,watch"
        choices = audiomill(
            _AUDIOMILL_COMPLETE="bash_complete", COMP_WORDS="audiomill transcribe --engine ", COMP_CWORD="3"
        )
        assert choices.stdout.split() == ["plain,ray", "plain,local"]
