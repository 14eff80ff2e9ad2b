"""`--model new://NAME`: which names there are, and their folders."""

from __future__ import annotations

import json
from pathlib import Path

from audiomill.errors import UsageError

SCHEME = "new://"
ABOUT = "_about"
"""In config.json: what people are told."""


def is_new(model: str) -> bool:
    """Whether a name stands for random weights."""
    return model.startswith(SCHEME)


def new_folder(model: str) -> Path:
    """The folder with the config.json of a name.

    Raises:
        UsageError: there is no such name.
    """
    names = [path.parent.name for path in _configs()]
    name = model.removeprefix(SCHEME)
    if name not in names:
        raise UsageError(f"--model {model}: expected {', '.join(SCHEME + each for each in names)}")
    return Path(__file__).parent / name


def new_models() -> list[tuple[str, str]]:
    """Names, and what each of them is."""
    return [(SCHEME + path.parent.name, json.loads(path.read_text())[ABOUT]) for path in _configs()]


def _configs() -> list[Path]:
    return sorted(Path(__file__).parent.glob("*/config.json"))
