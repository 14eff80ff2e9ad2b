"""Checkpoints that are made of others': where their parts are kept, and that they are the ones that were trained with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from audiomill.errors import ModelError


def place_of(folder: Path, name: str, inside: str) -> str:
    """Where a part's weights are: beside config.json under the name `inside` (or a file in there), or where it says."""
    return str(folder / name) if name.split("/")[0] == inside and not Path(name).is_absolute() else name


def name_of(part: str, inside: str) -> str:
    """What config.json says of a part: `inside` for a local folder, which is kept beside it, or a file in there; else the name."""
    path = Path(part)
    return f"{inside}/{path.name}" if path.is_file() else inside if path.exists() else part


def check_same_part(what: str, name: str, result: str, expected: str) -> None:
    """Raises ModelError where a part's weights are not those that were trained with.

    Args:
        what: it is, for people.
        name: where it was found.
        found, expected: fingerprints.
    """
    if result != expected:
        raise ModelError(
            f"{name}: not the {what} that was trained with (its weights are {result}, expected {expected}); "
            "put the same weights there, or train anew"
        )


def keep(place: Path, folder: Path) -> None:
    """Puts a part's files, or its one file, into a folder, by hard links where the file system has them."""
    if place.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / place.name).unlink(missing_ok=True)
        _linked(str(place), str(folder / place.name))
        return
    shutil.copytree(place, folder, copy_function=_linked, dirs_exist_ok=True)


def _linked(source: str, target: str) -> str:
    real = os.path.realpath(source)
    try:
        os.link(real, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(real, target)
    return target
