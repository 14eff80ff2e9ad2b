"""Segments of recordings as sound inside a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiomill.config.defaults import WINDOW_S
from audiomill.config.stages import DecodeConfig, PlanConfig
from audiomill.html.page import Raw
from audiomill.report.listen import flac_uri
from audiomill.train.clips import Source, prepare
from audiomill.train.pseudo import span_of

_MAX_CLIP_S = WINDOW_S


def players(rows: Sequence[Mapping[str, Any]], folder: Path, options: dict[str, Any]) -> dict[str, Raw]:
    """An audio element by row id.

    Args:
        rows: as in `selection.SELECTED`: id, source, member, kind, position, size, channel, offset, duration.
        folder: scratch.
        options: for fsspec.
    """
    if not rows:
        return {}
    spans = [(span_of(row), row["channel"]) for row in rows]
    source = Source(role="listen", inputs=(), needs_text=False, spans=tuple(spans))
    clips, _ = prepare([source], folder, DecodeConfig(), PlanConfig(storage_options=options), _MAX_CLIP_S, 0.0)
    clip_rows = clips["listen"]
    number = {identity: at for at, identity in enumerate(clip_rows.table.column("id").to_pylist())}
    results = {}
    for row, (entry, _) in zip(rows, spans, strict=True):
        if entry.id in number:
            results[row["id"]] = player(clip_rows.pcm(number[entry.id]), row["text"])
    return results


def player(pcm_T: Any, text: str | None) -> Raw:
    """An audio element that needs no file."""
    label = (text or "").replace('"', "'").replace("<", "").replace("&", "and")
    return Raw(f'<audio controls preload="none" aria-label="{label}" src="{flac_uri(pcm_T)}"></audio>')
