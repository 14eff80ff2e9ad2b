"""Child processes of ours: how one is started, asked and ended; both kinds, decoders and models, are these.

Messages are bytes over a socket, whole or not at all; what they mean is said where they are sent. Starting a process takes
seconds: who is done with one leaves it for the next who needs such a one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any, Generic, Protocol, TypeVar

from audiomill.errors import WorkerDiedError

DYING_S = 5.0
"""For a process that has closed its socket to end by itself, so that its own exit status is known."""


def command_of(module: str) -> list[str]:
    """Runs `main` of a module, isolated: what is installed comes before this process's other folders, so that no file of
    the user beside the audio (a json.py, say) is run in place of a library's."""
    start = f"import sys; sys.path += sys.argv[1:]; from {module} import main; main()"
    return [sys.executable, "-I", "-c", start, *(folder for folder in sys.path if folder)]


class Child:
    """A running process and the socket to it.

    Args:
        module: whose `main` it runs; there `parent_channel` is the other end.
        origin: what it was started with; another origin wants another process.
        environment: of the process.
        verbose: let its libraries speak on stderr.
    """

    def __init__(self, module: str, origin: object, environment: Mapping[str, str], verbose: bool) -> None:
        ours, theirs = socket.socketpair()
        self.origin, self._channel = origin, Connection(ours.detach())
        stderr = None if verbose else subprocess.DEVNULL
        command = command_of(module)
        self._process = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=stderr, env=environment
        )
        theirs.close()
        self.pid = self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: bytes) -> None:
        """Raises WorkerDiedError: the process is gone."""
        with self._alive():
            self._channel.send_bytes(message)

    def receive(self) -> bytes:
        """Waits for a message. Raises WorkerDiedError: the process is gone."""
        with self._alive():
            return self._channel.recv_bytes()

    def has_message_within(self, seconds: float) -> bool:
        """Also true where the process is gone, which `receive` reports."""
        with self._alive():
            return self._channel.poll(seconds)

    def end(self, patience_s: float = 0.0) -> int:
        """Kills it, unless it ends by itself before; its exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self._process.kill()
        self._channel.close()
        return self._process.wait()

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            raise WorkerDiedError(self.end(DYING_S)) from error


def parent_channel() -> Any:
    """In a child process: the socket to its parent, a `Connection`, under a number that no library writes to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    channel = Connection(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return channel


class Waiting(Protocol):
    """What can be left for others: a `Child`."""

    @property
    def origin(self) -> object: ...

    def is_alive(self) -> bool: ...

    def end(self) -> int: ...


C = TypeVar("C", bound=Waiting)


class Idle(Generic[C]):
    """Processes that wait. They end with this program; a fork forgets them, because their sockets are its parent's."""

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
