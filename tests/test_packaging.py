"""What people install: a clean wheel, a console script, help that shows how, and no colour where nobody sees it."""

from __future__ import annotations

import contextlib
import os
import pty
import pydoc
import re
import site
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

import audiomill
from audiomill_jobs.main import JOBS
from tests.support.command_line import JOB_NAMES, command_of
from tests.support.synth import encode, noise

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
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Site-packages of a new environment with the wheel; its dependencies are those of this one, which takes minutes less."""
    environment = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=120)
    (packages,) = environment.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return packages


@pytest.mark.timeout(300)
def test_the_wheel_holds_the_program_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name == f"audiomill-{audiomill.__version__}-py3-none-any.whl"
    assert {name.split("/")[0] for name in names} == {
        "audiomill",
        "audiomill_jobs",
        f"audiomill-{audiomill.__version__}.dist-info",
    }
    for root in (ROOT / "pipeline", ROOT / "jobs"):
        for path in root.glob("**/*"):
            if path.suffix in (".py", ".css", ".js", ".typed"):
                assert path.relative_to(root).as_posix() in names, path
    assert not [name for name in names if "test" in name.lower() or name.endswith(".pyc")]
    assert any(name.endswith("licenses/LICENSE") for name in names)


SHADOWS = ("pipeline.py", "jobs.py", "json.py", "numpy.py", "token.py", "datasets.py", "utils.py")
"""Files that people have beside their audio; none of them may be run."""


def write_shadows(folder: Path, names: tuple[str, ...] = SHADOWS) -> None:
    for name in names:
        (folder / name).write_text(f"raise SystemExit('the user's {name} was imported')\n")
    (folder / "pipeline").mkdir()
    (folder / "pipeline" / "__init__.py").write_text("raise SystemExit('the user's package was imported')\n")


@pytest.mark.timeout(300)
def test_it_works_beside_files_of_any_name(installed: Path, tmp_path: Path) -> None:
    """The console script and the decode workers, in a folder whose files have the names of libraries."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = installed.parents[2] / "bin" / "python"
    start = "import sys; sys.path.remove(''); from audiomill_jobs.main import main; sys.argv[0] = 'audiomill'; main()"
    write_shadows(tmp_path)
    (tmp_path / "a.wav").write_bytes(encode(noise(8_000, 1)))
    command = [str(python), "-c", start, "transcribe", "a.wav", "--model", "fake://", "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and (tmp_path / "out" / "report.html").exists(), done.stderr
    assert "1 recording" in done.stdout and "0 rejected" in done.stdout, done.stdout


@pytest.mark.timeout(300)
def test_a_script_beside_a_pipeline_py_and_a_jobs_folder_can_use_all_three(installed: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = installed.parents[2] / "bin" / "python"
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("NAME = 'my jobs'\n")
    (tmp_path / "pipeline.py").write_text("NAME = 'my pipeline'\n")
    (tmp_path / "mine.py").write_text(
        "import audiomill, audiomill_jobs, jobs, pipeline\n"
        "print(jobs.NAME, pipeline.NAME, audiomill.__version__, audiomill.__file__, audiomill_jobs.__file__)\n"
    )
    done = subprocess.run([str(python), "mine.py"], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60)
    *names, ours, theirs = done.stdout.split()
    assert names == ["my", "jobs", "my", "pipeline", audiomill.__version__], done.stderr
    assert ours.startswith(str(installed)) and theirs.startswith(str(installed / "audiomill_jobs"))
    told = subprocess.run(
        [str(python), "-m", "audiomill", "--version"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout == f"audiomill {audiomill.__version__}\n", told.stderr


def test_the_console_script_is_the_program(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "audiomill"
    told = subprocess.run([str(script), "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert told.stdout == f"audiomill {audiomill.__version__}\n", told.stderr


def test_help_shows_the_useful_text(audiomill_process: Any) -> None:
    for function, words in ((audiomill.open_output, "columns"), (audiomill.run, "transcribe, embed or encode")):
        assert words in pydoc.plaintext.document(function) and "Args:" in pydoc.plaintext.document(function)
    started = time.perf_counter()
    shown = audiomill_process("--help").stdout
    assert time.perf_counter() - started < 5 and all(name in shown for name in JOB_NAMES)
    for about in (about for jobs in JOBS.values() for about in jobs.values()):
        assert about in shown and len(about) <= 45


def test_every_job_explains_itself_with_an_example() -> None:
    for name in JOB_NAMES:
        job = command_of(name)
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
def test_shells_complete_jobs_options_and_choices(audiomill_process: Any, shell: str) -> None:
    assert "_AUDIOMILL_COMPLETE" in audiomill_process("completion", shell).stdout
    if shell == "bash":
        jobs = audiomill_process(_AUDIOMILL_COMPLETE="bash_complete", COMP_WORDS="audiomill wa", COMP_CWORD="1")
        assert jobs.stdout.strip() == "plain,watch"
        choices = audiomill_process(
            _AUDIOMILL_COMPLETE="bash_complete", COMP_WORDS="audiomill transcribe --engine ", COMP_CWORD="3"
        )
        assert choices.stdout.split() == ["plain,auto", "plain,local", "plain,ray"]
