"""A training whose --output is a URL: it works in a local folder, and what another machine needs to go on is kept at the URL.

Decoded clips stay local: another machine decodes them again.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiomill.errors import UsageError
from audiomill.storage.fs import Place, retried
from audiomill.train.fit.output_lock import FILES, clear_training
from audiomill.train.fit.state import STATE_NAME

STAYS_LOCAL = {"clips", "lock"}
OF_ALL_WORKERS = ("run.json", "state", "checkpoint", "result.json")
"""What workers beside the first one look at; the first one alone writes the rest."""


@dataclass(frozen=True)
class Mirror:
    """A local folder and the place that it stands for."""

    folder: Path
    place: Place

    def pull(self, is_first: bool) -> None:
        """Makes the folder what the place has. The first worker's folder may be ahead of it, after a kill while it was copied:
        then the place is made what the folder has.

        Raises:
            UsageError: it holds what no training wrote.
        """
        names, here = self._own_names(), self._here()
        local_record = self.folder / "run.json"
        if local_record.exists() and (
            "run.json" not in names or self.place.join("run.json").read() != local_record.read_bytes()
        ):
            clear_training(self.folder)  # of another run, which is no more at the place
            here = set()
        if is_first and _newest(here) > _newest(names):
            self.push()
            return
        if not is_first:
            names = [name for name in names if name.split("/")[0] in OF_ALL_WORKERS]
            for name in here - set(names):
                if name.split("/")[0] in OF_ALL_WORKERS:
                    (self.folder / name).unlink(missing_ok=True)
        for name in names:
            self._get(name)

    def push(self) -> None:
        """Everything but clips, the settings first and the result last; what the folder has no more is removed there."""
        here = self._here()
        for name in sorted(here, key=lambda name: (name != "run.json", name == "result.json", name)):
            retried(lambda name=name: self._put(name))  # type: ignore[misc]
        for name in self._names():
            if name not in here and name.split("/")[0] in FILES - STAYS_LOCAL:
                self.place.join(name).remove()

    def remove(self) -> None:
        """For --overwrite."""
        for name in self._own_names():
            self.place.join(name).remove()

    def _here(self) -> set[str]:
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and path.relative_to(self.folder).parts[0] in FILES - STAYS_LOCAL
        }

    def _get(self, name: str) -> None:
        """A file, where it is not here already: files of the same settings and size are the same."""
        source, target = self.place.join(name), self.folder / name
        if target.exists() and target.stat().st_size == source.fs.size(source.path):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
        retried(lambda: source.fs.get_file(source.path, str(temporary)))
        os.replace(temporary, target)

    def _put(self, name: str) -> None:
        target = self.place.join(name)
        target.fs.makedirs(target.path.rsplit("/", 1)[0], exist_ok=True)
        target.fs.put_file(str(self.folder / name), target.path)

    def _own_names(self) -> list[str]:
        """Files that a training wrote; what else lies beside them is left alone."""
        names = self._names()
        foreign = sorted({name.split("/")[0] for name in names} - FILES)
        if foreign and "run.json" not in names:
            raise UsageError(
                f"--output {self.place.url}: holds {foreign[0]!r}, which no training wrote; choose another folder"
            )
        return [name for name in names if name.split("/")[0] in FILES]

    def _names(self) -> list[str]:
        fs, root = self.place.fs, self.place.path.rstrip("/")
        fs.invalidate_cache()
        try:
            results = [str(each) for each in fs.find(root)]
        except FileNotFoundError:
            return []
        bare = root.strip("/")
        return sorted(
            result.strip("/")[len(bare) + 1 :] for result in results if result.strip("/").startswith(f"{bare}/")
        )


def _newest(names: Iterable[str]) -> int:
    """Update of the newest state among some files; results come behind every state."""
    names = list(names)
    results = [int(match.group(1)) for name in names if (match := STATE_NAME.fullmatch(name.split("/")[-1]))]
    return max(results, default=-1) if "result.json" not in names else sys.maxsize


def mirror_of(output: str, options: dict[str, Any]) -> Mirror | None:
    """The mirror of an output, where it is a URL; its folder is the same for every run on this machine."""
    if "://" not in output:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "audiomill" / "training"
    name = hashlib.sha256(output.rstrip("/").encode()).hexdigest()[:16]
    return Mirror(cache / name, Place(output.rstrip("/"), options))


def local_folder_of(output: str, options: dict[str, Any]) -> Path:
    """Where a training works."""
    mirror = mirror_of(output, options)
    return Path(output).absolute() if mirror is None else mirror.folder
