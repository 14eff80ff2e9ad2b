"""What a student and its teacher got wrong on the same recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiomill.errors import UsageError
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.text.bootstrap import Comparison, paired_bootstrap
from audiomill.text.wer import Errors, score_pair


def scored(output: Path, options: dict[str, Any]) -> dict[str, Errors]:
    """Word errors of every recording with a reference, by id.

    Raises:
        UsageError: none has one.
    """
    rows = ledger.tables(Place(str(output), options), "recordings").to_pylist()
    results = {
        row["id"]: score_pair(row["reference"], row["text"], row["language"])[0]
        for row in rows
        if row["reference"] is not None
    }
    if not results:
        raise UsageError(f"{output}: no recording has a reference text; dev and test need audio with text")
    return results


def decided(before: dict[str, Errors], after: dict[str, Errors], seed: int) -> Comparison:
    """Paired comparison on the recordings that both have."""
    shared = sorted(before.keys() & after.keys())
    rows = [(_edits(before[name]), _edits(after[name]), after[name].num_reference) for name in shared]
    return paired_bootstrap([a for a, _, _ in rows], [b for _, b, _ in rows], [n for _, _, n in rows], seed=seed)


def _edits(errors: Errors) -> int:
    return errors.substitutions + errors.deletions + errors.insertions
