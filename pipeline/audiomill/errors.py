"""The exception tree. Every error says what failed, where, expected against got, and what happens now.

AudiomillError
├── UsageError          the command, a path or an option is wrong: exit code 2, one line
│   ├── InputError      an INPUT, a manifest or a reference file cannot be used
│   ├── ModelError      a checkpoint cannot be found or is of a kind we do not run
│   └── ConfigMismatchError   the output folder was made with another configuration
├── RunError            parts could not be finished: exit code 1
└── RecordingRejected   one recording cannot be used: becomes a row of the rejections table
"""

from __future__ import annotations

import signal
from typing import Any


class AudiomillError(Exception):
    """Base of every error that this program raises on purpose."""


class UsageError(AudiomillError):
    """Something the user typed is wrong; the message names the fix. Exit code 2."""


class InputError(UsageError):
    """An input, manifest or reference file is missing or has the wrong form."""


class ModelError(UsageError):
    """A checkpoint cannot be found, read or is of an unsupported kind."""


class ConfigMismatchError(UsageError):
    """The output was written with a configuration that gives other results."""


class RunError(AudiomillError):
    """The run ended with unfinished parts. Exit code 1; the same command continues it."""


class RecordingRejected(AudiomillError):
    """One recording cannot be used; it leaves as one row of the rejections table.

    Args:
        stage: where it failed: "plan", "read", "decode" or "infer".
        reason: one of `audiomill.schema.REASONS`.
        detail: what was expected and what was found, for a person.
    """

    def __init__(self, stage: str, reason: str, detail: str) -> None:
        super().__init__(f"{stage}: {reason}: {detail}")
        self.stage = stage
        self.reason = reason
        self.detail = detail


class WorkerDiedError(AudiomillError):
    """A decode or model process ended without an answer (signal, crash).

    Args:
        returncode: exit status as `subprocess` gives it; negative is a signal.
    """

    def __init__(self, returncode: int) -> None:
        super().__init__(_ending(returncode))
        self.returncode = returncode


def _ending(returncode: int) -> str:
    """How a process ended, for people."""
    if returncode >= 0:
        return f"the process ended with exit status {returncode}"
    if returncode == -signal.SIGKILL:
        return "the process was killed (SIGKILL), as happens where the machine or its container has no memory left"
    return f"the process was killed by signal {-returncode}"


class WorkerTimeoutError(WorkerDiedError):
    """A model process was killed, because it gave no sign of life for too long.

    Args:
        detail: what was expected and what was found.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(-9)
        self.args = (detail,)


_OLD_NAMES = {"RunFailed": "RunError", "OutputMismatch": "ConfigMismatchError", "Rejected": "RecordingRejected"}


def __getattr__(name: str) -> Any:
    """Names of version 0.1, which work for one version."""
    if name in _OLD_NAMES:
        return globals()[_OLD_NAMES[name]]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
