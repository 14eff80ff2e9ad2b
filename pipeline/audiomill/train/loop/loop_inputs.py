"""What a loop learns from and is measured by, looked at before anything is trained: overlaps, too little, and what changed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from audiomill.errors import UsageError
from audiomill.sources.entry import Entry, stem
from audiomill.stages.plan import listed
from audiomill.storage.fs import Place
from audiomill.storage.urls import on_disk
from audiomill.train.loop.labelling import Labelling
from audiomill.train.pseudo import is_selection
from audiomill.train.select.candidates import MIN_CALIBRATION
from audiomill.watch.progress import counted

_Metrics = dict[str, Any]


def write_lineage(folder: Path, teacher: _Metrics | None) -> None:
    """Which clips trained the student, and who labelled each: the labels, or a teacher."""
    clips = pq.read_table(folder / "training" / "clips.parquet").drop_columns(["part", "offset"])
    selection = folder / "selection" / "selected.parquet"
    pseudo = (
        set(pq.read_table(selection, columns=["source"]).column("source").to_pylist()) if selection.exists() else set()
    )
    has_labels = "pseudo" in clips.column("role").to_pylist()
    by_teacher = [
        role == "pseudo" or (not has_labels and source in pseudo)
        for role, source in zip(*(clips.column(name).to_pylist() for name in ("role", "source")), strict=True)
    ]
    name, weights = ("", "") if teacher is None else (f"round {teacher['round']}", teacher["fingerprint"])
    clips = clips.append_column("labelled_by", pa.array([name if each else "labels" for each in by_teacher]))
    clips = clips.append_column("teacher_weights", pa.array([weights if each else "" for each in by_teacher]))
    pq.write_table(clips, folder / "lineage.parquet")


_KEPT = "inputs.parquet"
MEASURES = ("dev", "test")
HASHED_BYTES = 1 << 20


class Seen(NamedTuple):
    """A recording of a role. `mark`: of its content and its text, as far as they can be had without decoding."""

    name: str
    id: str
    mark: str
    size: int | None
    has_text: bool


def seen_inputs(inputs: Mapping[str, Sequence[str]], label: Labelling) -> dict[str, list[Seen]]:
    """The recordings of each role; selections and other outputs in their place are left out.

    Args:
        inputs: by role.
        label: how audio is read.
    """
    results = {}
    for role, names in inputs.items():
        plain = tuple(name for name in names if not is_selection(Place(name, label.plan.storage_options)))
        entries = listed(plain, label.plan, label.decode, "").entries if plain else ()
        results[role] = [_seen(entry, role, label) for entry in entries if entry.reason is None]
    return results


def _seen(entry: Entry, role: str, label: Labelling) -> Seen:
    text = hashlib.sha256(repr((entry.reference, entry.language)).encode("utf-8", "surrogatepass"))
    is_file = entry.kind == "file" and entry.source.startswith("/")
    if role == "unlabelled":
        return Seen(_name(entry), entry.id, str(entry.size), entry.size, False)
    for sidecar in entry.sidecars or () if is_file else ():
        text.update(Place(f"{stem(entry.source)}.{sidecar.kind}", label.plan.storage_options).read())
    sound = _content(entry.source) if is_file else f"{entry.version} {entry.size}"
    has_text = entry.reference is not None or bool(entry.sidecars)
    return Seen(_name(entry), entry.id, f"{sound} {text.hexdigest()[:16]}", entry.size, has_text)


def _name(entry: Entry) -> str:
    return entry.member or entry.source


def _content(source: str) -> str:
    result = hashlib.sha256()
    try:
        with open(on_disk(source), "rb") as handle:
            while block := handle.read(HASHED_BYTES):
                result.update(block)
    except OSError:
        return "unreadable"
    return result.hexdigest()[:16]


def check_inputs(seen: Mapping[str, Sequence[Seen]], needs_calibration: bool) -> None:
    """Raises UsageError for what would make a measure worthless: learnt clips among those that it is made on, or too few.

    Args:
        seen: recordings by role.
        needs_calibration: the dev set is what confidences are compared with, a segment a recording.
    """
    for measure in MEASURES:
        texts = sum(each.has_text for each in seen[measure])
        if not texts:
            raise UsageError(
                f"{measure}: no recording has a text; expected audio with texts beside it or in a manifest"
            )
        if measure == "dev" and needs_calibration and texts < MIN_CALIBRATION:
            raise UsageError(
                f"dev: {counted(texts, 'recording')} with a text; labels are calibrated on it, expected at least {MIN_CALIBRATION} "
                "(or select.calibrate: another output with texts)"
            )
        for learnt in ("labelled", *(("dev",) if measure == "test" else ())):
            same = _in_both(seen.get(learnt, ()), seen[measure])
            if same:
                raise UsageError(
                    f"{counted(len(same), 'recording')} in both {learnt} and {measure}, the first {same[0][0]} "
                    f"(as {same[0][1]}): what was learnt measures nothing; take them out of one"
                )


def _in_both(some: Sequence[Seen], others: Sequence[Seen]) -> list[tuple[str, str]]:
    """Names of those that are the same recording, or the same bytes under another name."""
    by_id = {each.id: each.name for each in some}
    by_content = {each.mark.split()[0]: each.name for each in some if _is_hash(each)}
    results = []
    for other in others:
        name = by_id.get(other.id) or (by_content.get(other.mark.split()[0]) if _is_hash(other) else None)
        if name is not None:
            results.append((name, other.name))
    return results


def _is_hash(seen: Seen) -> bool:
    return len(seen.mark.split()[0]) == 16


def changed_inputs(root: Path, seen: Mapping[str, Sequence[Seen]]) -> list[str]:
    """Keeps what is there, or says what changed since a loop began.

    Args:
        root: the loop's folder.
        seen: recordings by role.

    Returns:
        What changed in the unlabelled audio, for people.

    Raises:
        UsageError: clips that were learnt, or measured on, are others now.
    """
    place, notes = root / _KEPT, []
    now = {role: {each.id: (each.name, each.mark) for each in rows} for role, rows in seen.items()}
    if place.exists():
        before: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        for row in pq.read_table(place).to_pylist():
            before[row["role"]][row["id"]] = row["name"], row["mark"]
        for role in now:
            difference = _difference(before[role], now[role])
            if difference is not None and role == "unlabelled":
                notes.append(
                    f"{role} changed since the loop began ({difference}): rounds to come label what is there now"
                )
            elif difference is not None:
                raise UsageError(
                    f"{role} changed since the loop began ({difference}): finished rounds learnt from, or were measured on, other clips. "
                    "Bring them back, or take another output"
                )
    rows = [
        {"role": role, "id": name, "name": difference[0], "mark": difference[1]}
        for role, each in now.items()
        for name, difference in each.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), place)
    return notes


def _difference(before: Mapping[str, tuple[str, str]], now: Mapping[str, tuple[str, str]]) -> str | None:
    parts = [
        (sorted(now[key][0] for key in now.keys() - before.keys()), "new"),
        (sorted(before[key][0] for key in before.keys() - now.keys()), "gone"),
        (
            sorted(now[key][0] for key in now.keys() & before.keys() if now[key] != before[key]),
            "with other sound or text",
        ),
    ]
    differences = [f"{len(names)} {what}, the first {names[0]}" for names, what in parts if names]
    return "; ".join(differences) or None
