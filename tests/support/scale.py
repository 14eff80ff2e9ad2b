"""How much a test tries: little in `make test`, all of it in `make test-all`."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

IS_ALL = os.environ.get("AUDIOMILL_TESTS") == "all"


def daily(few: T, everything: T) -> T:
    """The same claim on few inputs, or on all."""
    return everything if IS_ALL else few
