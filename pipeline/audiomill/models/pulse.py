"""A sign of life from inside long computations, for whoever watches over this process.

What computes for long calls `beat` every now and then: it costs nothing where nobody feels it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_feeling: list[Callable[[], None]] = []


def beat() -> None:
    """This process gets on."""
    for feel in _feeling:
        feel()


@contextlib.contextmanager
def felt(feel: Callable[[], None]) -> Iterator[None]:
    """`feel` is called at every beat."""
    _feeling.append(feel)
    try:
        yield
    finally:
        _feeling.remove(feel)
