"""Fixtures: real weights and voices, one Ray session for the suite, a real S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from filelock import FileLock
from hypothesis import settings
from numpy.typing import NDArray

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from audiomill_jobs.install.demo import english_clips, whisper_folder
from tests.support.command_line import in_process
from tests.support.jobs_by_hand import loaded
from tests.support.object_store import s3_server
from tests.support.scale import daily
from tests.support.synth import CTC_FAMILIES, save_ctc_checkpoint

settings.register_profile("shared machines are slow at times", deadline=None, max_examples=daily(40, 100))
settings.load_profile("shared machines are slow at times")


LONGEST_FIRST = (
    "train/test_train", "runs/test_laws", "cluster/test_on_ray", "models/test_fallback", "models/test_wav2vec2", "jobs/test_run_yaml",
    "models/test_whisper_engine", "models/test_whisper", "watch/test_watch", "train/test_self_training", "models/test_frames",
)  # fmt: skip
"""Files that take longest: two processes end at the same time if these begin first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order of the files; each stays in one process, because its tests share what is slow to make."""
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}

    def key(item: pytest.Item) -> tuple[int, str]:
        stem = item.path.relative_to(Path(__file__).parent).with_suffix("").as_posix()
        return rank.get(stem, len(rank)), stem

    items.sort(key=key)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Seconds of every file, longest first."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                seconds[report.nodeid.split("::")[0]] += report.duration
    terminalreporter.section("seconds by file")
    for name, total in sorted(seconds.items(), key=lambda pair: -pair[1]):
        terminalreporter.write_line(f"{total:7.1f}  {name}")


@pytest.fixture(scope="session")
def whisper() -> Path:
    """Whisper tiny.en, a CTranslate2 folder."""
    return whisper_folder()


@pytest.fixture(scope="session")
def tiny_en(whisper: Path) -> Any:
    """Whisper tiny.en, loaded, with timestamps."""
    return loaded(whisper)


@pytest.fixture(scope="session")
def voices() -> list[tuple[NDArray[np.int16], str]]:
    """Neural voices at 16 kHz with their text."""
    import soxr

    found = []
    for path, text in english_clips():
        waveform, rate = soundfile.read(path, dtype="float32")
        found.append((np.rint(soxr.resample(waveform, rate, 16_000) * 32767).astype(np.int16), text))
    return found


LIKE_ANOTHER = {"hubert-group", "unispeech", "unispeech-sat", "wav2vec2-layer"}
"""Families whose padding leaks where that of another one does: in `make test-all`."""


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(each, marks=pytest.mark.nightly) if each in LIKE_ANOTHER else each for each in sorted(CTC_FAMILIES)
    ],
)
def ctc_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CTC checkpoint of each family."""
    return save_ctc_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def wav2vec2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small group-norm wav2vec2 CTC checkpoint."""
    return save_ctc_checkpoint(tmp_path_factory.mktemp("w2v2"), "wav2vec2-group")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Any]:
    """One Ray session for the suite; jobs connect to it because it is there."""
    import ray

    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=300 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the test processes of one run share: the first one makes it, the others wait."""
    is_alone = "PYTEST_XDIST_WORKER" not in os.environ
    base = tmp_path_factory.getbasetemp()
    root = (base if is_alone else base.parent) / name
    with FileLock(f"{root}.lock"):
        if not (root / "made").exists():
            root.mkdir(exist_ok=True)
            make(root)
            (root / "made").touch()
    return root


@pytest.fixture(scope="session")
def tone_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labelled/, dev/, config/ and model/: a small model trained to read the language of tones."""
    from tests.support.tone_language import save_config, write_corpus
    from tests.support.training import trained

    def make(root: Path) -> None:
        write_corpus(root / "labelled", range(60))
        write_corpus(root / "dev", range(300, 320))
        save_config(root / "config")
        options = {
            "model": str(root / "config"),
            "dev": str(root / "dev"),
            "max_updates": 500,
            "batch_seconds": 4.0,
        }
        trained(root / "labelled", root / "model", evaluate_every=250, **options)

    return made_once(tmp_path_factory, "tone-model", make)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server process over HTTP on this machine."""
    with s3_server() as url:
        os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        yield url


@pytest.fixture
def audiomill(tmp_path: Path) -> Any:
    """Runs the command line in a folder of its own, in this process; gives what a finished process would."""

    def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return in_process(tmp_path, *args, **environment)

    return run


@pytest.fixture
def audiomill_process(tmp_path: Path) -> Any:
    """Runs the command line in a folder of its own, as a process: where that is what is tested."""

    def run(*args: str, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "audiomill", *args]
        settings = {**os.environ, **environment}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout, env=settings)

    return run
