"""What was found in the files of a checkpoint, remembered until one of them is written again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_Found = TypeVar("_Found")
REMEMBERED = 32


def once_per_content(look: Callable[[Path], _Found]) -> Callable[[Path], _Found]:
    """Remembers what `look` found: a program that runs many jobs with one checkpoint reads and hashes it once.

    Args:
        look: reads a file, or the files directly in a folder, and nothing else. Its result is not to be changed.
    """

    @functools.lru_cache(maxsize=REMEMBERED)
    def look_once(path: Path, state: tuple[object, ...]) -> _Found:
        return look(path)

    @functools.wraps(look)
    def remembered(path: Path) -> _Found:
        files = sorted(path.iterdir()) if path.is_dir() else [path] * path.exists()
        return look_once(path.absolute(), tuple(_state(file) for file in files))

    return remembered


def _state(file: Path) -> tuple[object, ...]:
    """Changes with every write: the time of the last change of a file (ctime) cannot be set back."""
    stat = file.stat()
    return file.name, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
