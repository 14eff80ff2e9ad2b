"""The heartbeat of long computations, for the watchdog over this process.

What computes for long calls `heartbeat` every now and then: it costs nothing where nobody feels it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_feeling: list[Callable[[], None]] = []


def heartbeat() -> None:
    """This process gets on."""
    for callback in _feeling:
        callback()


@contextlib.contextmanager
def on_heartbeat(callback: Callable[[], None]) -> Iterator[None]:
    """`callback` is called at every beat."""
    _feeling.append(callback)
    try:
        yield
    finally:
        _feeling.remove(callback)
