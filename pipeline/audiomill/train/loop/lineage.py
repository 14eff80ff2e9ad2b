"""Which clips trained a student, and whose labels they had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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
