"""What the recordings of an output say in `notes`, counted by kind: sound that was changed, or is not as it was asked for."""

from __future__ import annotations

import re
from collections import Counter

import pyarrow.compute as pc

from audiomill.storage import ledger
from audiomill.storage.fs import Place

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
MOST_KINDS = 8


def remarks(output: Place) -> list[tuple[str, int]]:
    """Kinds of notes and how many recordings have one, most first; numbers in them are those of the first."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for _, part in ledger.each_part(output, "recordings", ["notes"]):
        for text in part.column("notes").filter(pc.is_valid(part.column("notes"))).to_pylist():
            for note in text.split("; "):
                kind = NUMBER.sub("#", note)
                counts[kind] += 1
                first.setdefault(kind, note)
    return [(first[kind], count) for kind, count in counts.most_common(MOST_KINDS)]
