"""Where a training run stands, on disk: written in one step, read back without pickle's dangers."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

STATE_NAME = re.compile(r"update-(\d+)\.pt")


class Progress(NamedTuple):
    """How far a run is. `num_worse`: evaluations since the best one."""

    num_updates: int = 0
    best_wer: float | None = None
    num_worse: int = 0
    dev_wer: float | None = None

    def after_update(self, num_updates: int) -> Progress:
        return self._replace(num_updates=num_updates)

    def after_evaluation(self, wer: float, is_better: bool) -> Progress:
        return self._replace(
            dev_wer=wer, best_wer=wer if is_better else self.best_wer, num_worse=0 if is_better else self.num_worse + 1
        )


class States:
    """Saved states in a folder. The best weights belong to the state that was saved after them: a kill in between
    leads back to the state before, which finds the same best weights again.

    Args:
        folder: local.
        map_to: device that tensors are read to.
        saved: told when a state is complete.
    """

    def __init__(self, folder: Path, map_to: torch.device, saved: Callable[[], None] = lambda: None) -> None:
        self._folder, self._device, self._saved = folder, map_to, saved

    def newest(self) -> int | None:
        """Update of the newest state."""
        results = [
            int(match.group(1))
            for each in self._folder.glob("update-*.pt")
            if (match := STATE_NAME.fullmatch(each.name))
        ]
        return max(results, default=None)

    def latest(self) -> dict[str, Any] | None:
        number = self.newest()
        if number is None:
            return None
        state: dict[str, Any] = torch.load(
            self._folder / f"update-{number}.pt", map_location=self._device, weights_only=True
        )
        best = self._folder / f"best-{number}.safetensors"
        if best.exists():
            shutil.copyfile(best, self._folder / "best.safetensors")
        else:
            (self._folder / "best.safetensors").unlink(missing_ok=True)
        return state

    def save(self, state: dict[str, Any], number: int) -> None:
        """Keeps this state and forgets the one before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        before = self.newest()
        best = self._folder / "best.safetensors"
        if best.exists():
            shutil.copyfile(best, self._folder / f"best-{number}.safetensors")
        temporary = self._folder / "update.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self._folder / f"update-{number}.pt")
        if before is not None and before != number:
            (self._folder / f"update-{before}.pt").unlink()
            (self._folder / f"best-{before}.safetensors").unlink(missing_ok=True)
        self._saved()

    def keep_best(self, model: Any) -> None:
        """The weights that did best so far."""
        self._folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
        save_file(_without_sharing(tensors), self._folder / "best.safetensors")

    def best(self) -> dict[str, Any] | None:
        path = self._folder / "best.safetensors"
        return load_file(path, device=str(self._device)) if path.exists() else None


def _without_sharing(tensors: dict[str, Any]) -> dict[str, Any]:
    """Tied weights once: safetensors keeps no two names for one tensor; loading ties them again."""
    seen: set[int] = set()
    results = {}
    for name, value in tensors.items():
        if value.data_ptr() not in seen or value.numel() == 0:
            seen.add(value.data_ptr())
            results[name] = value
    return results
