"""Silence for what libraries write past Python: Ray's and FFmpeg's C++ parts print to descriptor 2 themselves."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_libraries(verbose: bool) -> Iterator[None]:
    """Keeps descriptor 2 to ourselves: `sys.stderr` still reaches the user, C libraries reach nothing."""
    if verbose:
        yield
        return
    sys.stderr.flush()
    saved_stderr, ours = os.dup(2), sys.stderr
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    sys.stderr = os.fdopen(os.dup(saved_stderr), "w", buffering=1)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved_stderr, 2)
        os.close(saved_stderr)
        sys.stderr = ours
