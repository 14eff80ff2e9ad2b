"""The command line in this process: as a shell would call it, without two seconds of imports a call."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import click

from audiomill_jobs.main import JOBS, command_line, main

JOB_NAMES = tuple(name for jobs in JOBS.values() for name in jobs)


def command_of(name: str) -> click.Command:
    """The command of a job."""
    found = command_line.get_command(click.Context(command_line), name)
    assert found is not None, name
    return found


def in_process(folder: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `audiomill ARGS` in `folder`; what it and its libraries write is caught at the descriptors."""
    with ExitStack() as stack:
        out, err = (stack.enter_context(_caught(number)) for number in (1, 2))
        stack.enter_context(patch.dict(os.environ, environment))
        stack.enter_context(patch.object(sys, "argv", ["audiomill", *args]))
        stack.enter_context(warnings.catch_warnings())
        before = Path.cwd()
        stack.callback(os.chdir, before)
        os.chdir(folder)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        texts = [Path(name).read_text() for name in (out, err)]
    return subprocess.CompletedProcess(["audiomill", *args], code, *texts)


@contextmanager
def _caught(number: int) -> Iterator[str]:
    """Sends descriptor 1 or 2, and Python's stream of it, to a file."""
    name = {1: "stdout", 2: "stderr"}[number]
    getattr(sys, name).flush()
    kept = os.dup(number)
    with tempfile.NamedTemporaryFile() as caught:
        os.dup2(caught.fileno(), number)
        try:
            with open(os.dup(number), "w", buffering=1) as stream, patch.object(sys, name, stream):
                yield caught.name
        finally:
            os.dup2(kept, number)
            os.close(kept)
