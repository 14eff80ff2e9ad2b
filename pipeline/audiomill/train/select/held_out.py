"""What must not leak into training: recordings, sounds and texts of evaluation sets."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiomill.audio.clock import seconds_from_samples
from audiomill.audio.fingerprint import sound_fingerprint
from audiomill.config.stages import DecodeConfig, PlanConfig
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.train.clips import Source, prepare
from audiomill.train.select.rules import plain

_MAX_CLIP_S = 120.0


@dataclass(frozen=True)
class HeldOut:
    """Of all evaluation sets together. `recordings`: source and member."""

    recordings: frozenset[tuple[str, str]]
    texts: frozenset[str]
    file_hashes: NDArray[np.int64]
    lengths: NDArray[np.float64]


def read_held_out(names: str, options: dict[str, Any]) -> HeldOut:
    """Outputs of transcribe, or inputs, which are decoded."""
    recordings: set[tuple[str, str]] = set()
    texts: set[str] = set()
    file_hashes: list[int] = []
    lengths: list[float] = []
    for name in (each.strip() for each in names.split(",") if each.strip()):
        place = Place(name, options)
        if place.join("run.json").exists():
            _read_output(place, recordings, texts, file_hashes, lengths)
        else:
            _read_inputs(name, options, recordings, texts, file_hashes, lengths)
    return HeldOut(
        frozenset(recordings), frozenset(texts), np.array(file_hashes, np.int64), np.array(lengths, np.float64)
    )


def _read_output(
    place: Place, recordings: set[tuple[str, str]], texts: set[str], file_hashes: list[int], lengths: list[float]
) -> None:
    for row in ledger.tables(place, "recordings").to_pylist():
        recordings.add((row["source"], row["member"]))
        texts |= {plain(text, row["language"]) for text in (row["reference"], row["text"]) if text}
    for row in ledger.tables(place, "segments").to_pylist():
        file_hashes.append(row["fingerprint"])
        lengths.append(row["stop_s"] - row["start_s"])
        if row["text"]:
            texts.add(plain(row["text"], row["language"]))


def _read_inputs(
    name: str,
    options: dict[str, Any],
    recordings: set[tuple[str, str]],
    texts: set[str],
    file_hashes: list[int],
    lengths: list[float],
) -> None:
    """Whole recordings; those too long to be a clip count by name alone."""
    source = Source(role="held", inputs=(name,), needs_text=False)
    with tempfile.TemporaryDirectory() as folder:
        plan = PlanConfig(storage_options=options)
        clips, dropped = prepare([source], Path(folder), DecodeConfig(), plan, _MAX_CLIP_S, 0.025)
        held = clips["held"]
        recordings |= {(each.source, each.member) for each in dropped}
        for at, row in enumerate(held.table.to_pylist()):
            recordings.add((row["source"], row["member"]))
            file_hashes.append(sound_fingerprint(held.pcm(at)))
            lengths.append(seconds_from_samples(row["num_samples"]))
            for language in (None, "en"):
                texts |= {plain(row["text"], language)} if row["text"] else set()
