"""Lhotse's recordings and cuts as entries. Source: lhotse.readthedocs.io, "Cuts"."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from audiomill.sources.entry import Entry
from audiomill.sources.manifest_row import BadRow, channel_of, number_of, resolve
from audiomill.storage.fs import Place


def recording_entry(row: dict[str, Any], manifest: Place, audio_root: str | None) -> Entry:
    return Entry(
        _source(row, manifest, audio_root),
        duration_s=number_of(row, "duration"),
        metadata=json.dumps({"recording_id": row.get("id")}),
        key=str(row.get("id")),
    )


def cut_entry(row: dict[str, Any], manifest: Place, audio_root: str | None) -> Entry:
    row = _only_track(row)
    recording = row.get("recording")
    if not isinstance(recording, dict):
        raise BadRow(f"expected a cut with a recording, got type {row.get('type')!r}")
    start, duration = number_of(row, "start"), number_of(row, "duration")
    if start is None or duration is None:
        raise BadRow("expected a cut with start and duration")
    channel = channel_of(row.get("channel")) if _num_channels(recording) > 1 else None
    texts = (s for s in row.get("supervisions") or [] if isinstance(s, dict))
    supervisions = [s for s in texts if _is_in(s, duration) and _is_of(s, channel)]
    text, language = supervision_text(supervisions)
    return Entry(
        _source(recording, manifest, audio_root),
        duration_s=duration,
        span_start_s=start,
        span_duration_s=duration,
        channel=channel,
        reference=text,
        language=language,
        metadata=json.dumps({"cut_id": row.get("id"), "recording_id": recording.get("id")}),
    )


def supervision_text(supervisions: Iterable[dict[str, Any]]) -> tuple[str | None, str | None]:
    """Texts of supervisions in the order of time, and the first language that one of them names."""
    ordered = sorted(supervisions, key=lambda each: float(each.get("start") or 0))
    text = " ".join(str(each["text"]) for each in ordered if each.get("text"))
    language = next((str(each["language"]) for each in ordered if each.get("language")), None)
    return text or None, language


def _is_in(supervision: dict[str, Any], duration: float) -> bool:
    """Whether some of it is said inside the cut, from whose start it counts."""
    start, length = number_of(supervision, "start", signed=True), number_of(supervision, "duration")
    return start is None or (start < duration and (length is None or start + length > 0))


def _is_of(supervision: dict[str, Any], channel: int | None) -> bool:
    """Whether it is said on the one channel that is meant."""
    channels = supervision.get("channel")
    return channel is None or channels is None or channel in (channels if isinstance(channels, list) else [channels])


def _only_track(row: dict[str, Any]) -> dict[str, Any]:
    """The cut in a cut of several tracks, where the others are padding."""
    tracks = row.get("tracks")
    if not isinstance(tracks, list):
        return row
    cuts = [track.get("cut") if isinstance(track, dict) else None for track in tracks]
    audible = [cut for cut in cuts if not (isinstance(cut, dict) and cut.get("type") == "PaddingCut")]
    if len(audible) == 1 and isinstance(audible[0], dict):
        return audible[0]
    raise BadRow(f"expected a cut of one recording, got a mix of {len(audible)} tracks; save the mix as audio first")


def _num_channels(recording: dict[str, Any]) -> int:
    """By whichever field of Lhotse's tells it; a recording that tells nothing has one."""
    sources = recording.get("sources")
    named = [recording.get("channel_ids"), *(s.get("channels") for s in sources or () if isinstance(s, dict))]
    return max((len(each) for each in named if isinstance(each, list)), default=1)


def _source(recording: dict[str, Any], manifest: Place, audio_root: str | None) -> str:
    transforms = recording.get("transforms")
    if transforms:  # its times are those of sound that is nowhere
        names = [
            str(transform.get("name", transform)) if isinstance(transform, dict) else str(transform)
            for transform in transforms
        ]
        raise BadRow(f"expected a recording as it is, got transforms {', '.join(names)}; save the cuts' audio first")
    sources = recording.get("sources")
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
        raise BadRow("expected a recording with exactly one source")
    source = sources[0]
    if source.get("type") not in ("file", "url") or not isinstance(source.get("source"), str):
        raise BadRow(f"expected a source of type file or url, got {source.get('type')!r} (commands are never run)")
    return resolve(source["source"], manifest, audio_root)
