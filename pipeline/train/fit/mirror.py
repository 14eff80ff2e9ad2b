"""A training whose --output is a URL: it works in a local folder, and what another machine needs to go on is kept at the URL.

Decoded clips stay local: another machine decodes them again.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiomill.errors import UsageError
from audiomill.storage.fs import Place, retried
from audiomill.train.fit.claim import FILES
from audiomill.train.fit.state import STATE_NAME

STAYS_LOCAL = {"clips"}
STATE = "state"


@dataclass(frozen=True)
class Mirror:
    """A local folder and the place that it stands for."""

    folder: Path
    place: Place

    def pull(self) -> None:
        """What the place has and the folder has not, unless the folder is ahead of it.

        Raises:
            UsageError: it holds what no training wrote.
        """
        names = self._own_names()
        if _newest(names) < _newest([f"{STATE}/{path.name}" for path in (self.folder / STATE).glob("*")]):
            names = []
        for name in names:
            target = self.folder / name
            if not target.exists() or target.stat().st_size != self.place.join(name).fs.size(
                self.place.join(name).path
            ):
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(target.name + ".part")
                retried(lambda name=name, to=temporary: self.place.fs.get_file(self.place.join(name).path, str(to)))  # type: ignore[misc]
                os.replace(temporary, target)

    def push_what_is_done(self) -> None:
        """For a training that was stopped between its end and its last copy."""
        if (self.folder / "result.json").exists() and not self.place.join("result.json").exists():
            self.push()

    def push(self) -> None:
        """Everything but clips; what the folder has no more is removed there, last."""
        here = {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and path.relative_to(self.folder).parts[0] in FILES - STAYS_LOCAL
        }
        for name in sorted(here, key=lambda name: (name.startswith("run.json"), name == "result.json", name)):
            retried(lambda name=name: self._put(name))  # type: ignore[misc]
        for name in self._names():
            if name not in here:
                self.place.join(name).remove()

    def remove(self) -> None:
        """For --overwrite."""
        for name in self._own_names():
            self.place.join(name).remove()

    def _put(self, name: str) -> None:
        target = self.place.join(name)
        target.fs.makedirs(target.path.rsplit("/", 1)[0], exist_ok=True)
        target.fs.put_file(str(self.folder / name), target.path)

    def _own_names(self) -> list[str]:
        names = self._names()
        foreign = sorted({name.split("/")[0] for name in names} - FILES)
        if foreign:
            raise UsageError(
                f"--output {self.place.url}: holds {foreign[0]!r}, which no training wrote; choose another folder"
            )
        return names

    def _names(self) -> list[str]:
        fs, root = self.place.fs, self.place.path.rstrip("/")
        fs.invalidate_cache()
        try:
            found = [str(each) for each in fs.find(root)]
        except FileNotFoundError:
            return []
        bare = root.strip("/")
        return sorted(each.strip("/")[len(bare) + 1 :] for each in found if each.strip("/").startswith(f"{bare}/"))


def _newest(names: Sequence[str]) -> int:
    """Update of the newest state among some files; results come behind every state."""
    found = [int(match.group(1)) for name in names if (match := STATE_NAME.fullmatch(name.split("/")[-1]))]
    return max(found, default=-1) if "result.json" not in names else sys.maxsize


def mirror_of(output: str, options: dict[str, Any]) -> Mirror | None:
    """The mirror of an output, where it is a URL; its folder is the same for every run on this machine."""
    if "://" not in output:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "audiomill" / "training"
    name = hashlib.sha256(output.rstrip("/").encode()).hexdigest()[:16]
    return Mirror(cache / name, Place(output.rstrip("/"), options))


def folder_of(output: str, options: dict[str, Any]) -> Path:
    """Where a training works."""
    mirror = mirror_of(output, options)
    return Path(output).absolute() if mirror is None else mirror.folder
