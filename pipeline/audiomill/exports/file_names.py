"""Names for the files of recordings."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from audiomill.sources.entry import stem

MAX_NAME_BYTES = 255 - len(".jsonl")
"""Most systems take 255 bytes, the suffix included."""
UNSAFE = frozenset('<>:"/\\|?*')
"""In no file name that every system takes."""


def file_names(recordings: pa.Table) -> dict[str, str]:
    """File names by recording id that say which one it is, each used once, none leading out of the folder."""
    ids, sources, members = (recordings.column(name).to_pylist() for name in ("id", "source", "member"))
    files = [(member or source).rsplit("/", 1)[-1] for source, member in zip(sources, members, strict=True)]
    wanted = _unless_shared([_safe(stem(name)) for name in files], [_safe(name) for name in files])
    fitting = [_fitting(name, id) for name, id in zip(wanted, ids, strict=True)]
    longer = [_fitting(name, id, always=True) for name, id in zip(wanted, ids, strict=True)]
    whole = [_fitting(name, id, always=True, length=len(id)) for name, id in zip(wanted, ids, strict=True)]
    return dict(zip(ids, _unless_shared(_unless_shared(fitting, longer), whole), strict=True))


def _fitting(name: str, id: str, always: bool = False, length: int = 8) -> str:
    """A name with a short id behind it, where it would be too long for a file, or always."""
    tail, content = f"-{id[:length]}", name.encode()
    if not always and len(content) <= MAX_NAME_BYTES:
        return name
    return content[: MAX_NAME_BYTES - len(tail)].decode("utf-8", "ignore") + tail


def _unless_shared(names: list[str], longer: list[str]) -> list[str]:
    """Names, the longer one where several would be the same on some systems."""
    count = Counter(name.lower() for name in names)
    return [name if count[name.lower()] == 1 else other for name, other in zip(names, longer, strict=True)]


def _safe(name: str) -> str:
    """Blanks and marks stay: players look for the very name."""
    safe = "".join("_" if c in UNSAFE or not c.isprintable() else c for c in name).lstrip(".")
    return safe or "recording"
