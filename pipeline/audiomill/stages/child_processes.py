"""Child processes of ours. Starting one takes seconds: who is done with one leaves it for the next who needs such a one."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import Generic, Protocol, TypeVar


def command_of(module: str) -> list[str]:
    """Runs `main` of a module, isolated: what is installed comes before this process's other folders, so that no file of
    the user beside the audio (a json.py, say) is run in place of a library's."""
    start = f"import sys; sys.path += sys.argv[1:]; from {module} import main; main()"
    return [sys.executable, "-I", "-c", start, *(folder for folder in sys.path if folder)]


class Child(Protocol):
    """A running process. `origin`: what it was started with; another origin wants another process."""

    @property
    def origin(self) -> object: ...

    def is_alive(self) -> bool: ...

    def end(self) -> int:
        """Kills it; its exit status."""
        ...


C = TypeVar("C", bound=Child)


class Idle(Generic[C]):
    """Processes that wait. They end with this program; a fork forgets them, because their pipes are its parent's."""

    def __init__(self) -> None:
        self._waiting: list[C] = []
        atexit.register(self.end_all)
        os.register_at_fork(after_in_child=self._waiting.clear)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, origin: object) -> C | None:
        """One of that origin; those of others are ended."""
        while (result := self._popped()) is not None:
            if result.origin == origin and result.is_alive():
                return result
            result.end()
        return None

    def leave(self, child: C) -> None:
        """Of a process that has answered everything it was asked."""
        self._waiting.append(child)

    def end_all(self) -> None:
        while (result := self._popped()) is not None:
            result.end()

    def _popped(self) -> C | None:
        with contextlib.suppress(IndexError):  # threads take them at once
            return self._waiting.pop()
        return None
