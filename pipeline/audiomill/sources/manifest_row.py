"""Fields of a manifest's row: paths that may not leave their folder, numbers, times, channels."""

from __future__ import annotations

import math
import posixpath
from typing import Any, NamedTuple

from audiomill.storage.fs import Place
from audiomill.storage.urls import absolute, protocol

SIDES = {"a": 0, "left": 0, "b": 1, "right": 1}
"""Names of channels in telephone corpora and editors; numbers count from 0."""


class BadRow(ValueError):
    """A manifest row that cannot be used; `reason` as in `schema.REASONS`."""

    def __init__(self, detail: str, reason: str = "bad_manifest_row") -> None:
        super().__init__(detail)
        self.reason = reason


class Note(NamedTuple):
    """Something unusual about a file that was read all the same."""

    text: str


def channel_of(value: Any) -> int | None:
    """The one channel that is meant; None for all, and for a word that means something else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        value = int(value) if value.isdecimal() else SIDES.get(value.strip().lower())
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def resolve(path: str, manifest: Place, audio_root: str | None) -> str:
    """Absolute path or URL of the audio that a manifest row names.

    Relative paths are taken from `audio_root`, or else from the manifest's folder, and may not leave it.
    Absolute local paths are for local manifests only, and inside `audio_root` if that is given.

    Raises:
        BadRow: the path leads outside.
    """
    scheme = protocol(path)
    remote = scheme not in ("file", "local")
    if remote and audio_root is None:
        return path
    root = absolute(audio_root or posixpath.dirname(absolute(manifest.url)) or ".")
    local_path = path if remote else path.removeprefix("file://").removeprefix("local://")
    if remote or posixpath.isabs(local_path):
        if audio_root is None and manifest.is_local:
            return posixpath.normpath(local_path)
        result = local_path if remote else posixpath.normpath(local_path)
        if (
            audio_root is not None
            and (result + "/").startswith(root.rstrip("/") + "/")
            and ".." not in result.split("/")
        ):
            return result
        raise BadRow(f"expected a path inside {root}, got {path}; see --audio-root", "path_outside_root")
    normal = posixpath.normpath(local_path)
    if normal == ".." or normal.startswith("../"):
        raise BadRow(f"expected a path inside {root}, got {path}; see --audio-root", "path_outside_root")
    return f"{root.rstrip('/')}/{normal}"


def first_of(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _clock(text: str) -> float:
    """`1:02:03.5` -> 3723.5."""
    total = 0.0
    for each in text.replace(",", ".").split(":"):
        total = 60 * total + float(each)
    return total


def _with_point(value: Any) -> Any:
    """Spreadsheets write `1,5` where commas are decimal."""
    is_comma = isinstance(value, str) and value.count(",") == 1 and "." not in value
    return value.replace(",", ".") if is_comma else value


def text_of(value: Any, what: str) -> str | None:
    """A text, or a number as one.

    Raises:
        BadRow: a list or a mapping: nobody knows which of its texts is meant.
    """
    if isinstance(value, (list, dict)):
        raise BadRow(f"expected a text as {what}, got {str(value)[:80]}")
    return None if value is None else str(value)


def number_of(row: dict[str, Any], name: str, signed: bool = False) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        number = _clock(value) if isinstance(value, str) and ":" in value else float(_with_point(value))
    except (TypeError, ValueError):
        raise BadRow(f"expected a number in {name}, got {value!r}") from None
    if not math.isfinite(number) or (number < 0 and not signed):
        raise BadRow(f"expected {name} to be 0 or more seconds, got {value!r}")
    return number
