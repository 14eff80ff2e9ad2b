"""Inputs and pseudo-labels -> clips with text, decoded once, read at random while training.

Every recording ends as one clip or as one dropped row with its reason. Decoded parts stay on disk, so a killed run
does not decode them again. T samples.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audiomill.audio.clock import MODEL_SAMPLE_RATE, seconds_from_samples
from audiomill.audio.cutting.segment import Segment
from audiomill.audio.cutting.segmenter import whole_spec
from audiomill.config.stages import DecodeConfig, PlanConfig
from audiomill.models.device import usable_cores
from audiomill.sources.entry import Entry
from audiomill.sources.entry import stem as stem_of
from audiomill.stages.cut import cut_part, segments_of
from audiomill.stages.plan import header_durations, listed, planned_table
from audiomill.stages.sandbox import Decoder
from audiomill.storage.fs import Place
from audiomill.storage.ledger import split_by_part
from audiomill.text.normalize import Text
from audiomill.train.pseudo import is_selection, read_selection

CLIP = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("member", pa.string()),
        ("start_s", pa.float64()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("role", pa.string()),
        ("weight", pa.float32()),
        ("part", pa.int32()),
        ("offset", pa.int64()),
        ("num_samples", pa.int64()),
        ("checksum", pa.int64()),
    ]
)
DROPPED = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("member", pa.string()),
        ("role", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
PART_SECONDS = 1800.0
MAX_SAMPLES_A_PIECE = 1 << 40
"""Parts pass as one piece: they are far smaller."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Inputs of one role: train, pseudo or dev. `needs_text`: clips without text are dropped."""

    role: str
    inputs: tuple[str, ...]
    weight: float = 1.0
    needs_text: bool = True


class Dropped(NamedTuple):
    """A clip that is not trained on."""

    id: str
    source: str
    member: str
    role: str
    reason: str
    detail: str


@dataclass(frozen=True)
class TrainingRows:
    """What is learnt from, in a fixed order; its content is on disk."""

    folder: Path
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def num_samples(self) -> NDArray[np.int64]:
        """Of the audio that each row is, or was made of."""
        return np.asarray(self.table.column("num_samples").to_numpy())


@dataclass(frozen=True)
class Clips(TrainingRows):
    """Clips, their samples on disk."""

    @cached_property
    def texts(self) -> list[str]:
        return [text or "" for text in self.table.column("text").to_pylist()]

    @cached_property
    def languages(self) -> list[str | None]:
        """As manifests name them."""
        return [row and str(row) for row in self.table.column("language").to_pylist()]

    def labelled_texts(self, language: str | None) -> list[Text]:
        """Texts and their languages; `language`: of those that name none."""
        return [
            Text(text, clip_language or language)
            for text, clip_language in zip(self.texts, self.languages, strict=True)
        ]

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        return np.asarray(self.table.column("weight").to_numpy())

    @cached_property
    def _at(self) -> list[tuple[str, int]]:
        columns = [self.table.column(name).to_pylist() for name in ("role", "part", "offset")]
        return [(f"{role}-{part:06d}.pcm", offset) for role, part, offset in zip(*columns, strict=True)]

    @cached_property
    def _files(self) -> dict[str, NDArray[np.int16]]:
        return {}

    @property
    def seconds(self) -> float:
        return seconds_from_samples(int(self.num_samples.sum()))

    def pcm(self, index: int) -> NDArray[np.int16]:
        """pcm_T of a clip, 16 kHz; a view of the file."""
        name, offset = self._at[index]
        if name not in self._files:
            self._files[name] = np.memmap(self.folder / name, np.int16, "r")
        return self._files[name][offset : offset + int(self.num_samples[index])]

    def only(self, mask: Sequence[bool]) -> Clips:
        """The clips that a mask keeps, in their order."""
        return Clips(self.folder, self.table.filter(pa.array(mask, pa.bool_())))


def prepare(
    sources: Sequence[Source],
    folder: Path,
    decode: DecodeConfig,
    plan: PlanConfig,
    max_clip_seconds: float,
    min_clip_seconds: float,
) -> tuple[dict[str, Clips], list[Dropped]]:
    """Decodes what is not decoded yet.

    Args:
        sources: one a role.
        folder: local; takes the samples, 32 kB for each second.
        decode: channels and limits.
        plan: storage options and audio root.
        max_clip_seconds: longer clips are dropped.
        min_clip_seconds: shorter ones too.

    Returns:
        Clips by role, and what was dropped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips, dropped = {}, []
    for source in sources:
        tables = [CLIP.empty_table()]
        first_part = 0
        for channel, entries in _entries(source, plan, decode, folder).items():
            durations = header_durations(entries, plan.storage_options)
            table = planned_table(entries, durations, first_part=first_part, part_seconds=PART_SECONDS)
            how = decode if channel is None else dataclasses.replace(decode, channels="split")
            decoded = partial(
                _decoded,
                source=source,
                channel=channel,
                folder=folder,
                make_decoder=partial(Decoder, how, whole_spec(max_clip_seconds), plan.storage_options),
                min_samples=int(min_clip_seconds * MODEL_SAMPLE_RATE),
                options=plan.storage_options,
            )
            parts = split_by_part(table)
            first_part += len(parts)
            with ThreadPoolExecutor(usable_cores()) as pool:
                for usable, lost in pool.map(decoded, parts.keys(), parts.values()):
                    tables.append(usable)
                    dropped += [Dropped(**row) for row in lost.to_pylist()]
        clips[source.role] = Clips(folder, pa.concat_tables(tables))
    return clips, dropped


def drop_counts(dropped: Sequence[Dropped]) -> dict[str, int]:
    """Reason -> how many, most first."""
    return dict(Counter(each.reason for each in dropped).most_common())


def _entries(source: Source, plan: PlanConfig, decode: DecodeConfig, folder: Path) -> dict[int | None, list[Entry]]:
    """Recordings or spans with their text, by the channel that is meant (None: as decoded)."""
    entries: defaultdict[int | None, list[Entry]] = defaultdict(list)
    plain = []
    for name in source.inputs:
        place = Place(name, plan.storage_options)
        if is_selection(place):
            for entry, channel in read_selection(place):
                entries[channel].append(entry)
        else:
            plain.append(name)
    if plain:
        listing = listed(tuple(plain), plan, decode, str(folder))
        plan.storage_options.update(listing.options({}))  # whoever reads them later
        entries[None] += listing.entries
    return entries


def _decoded(
    part: int,
    rows: pa.Table,
    *,
    source: Source,
    channel: int | None,
    folder: Path,
    make_decoder: Callable[[], Decoder],
    min_samples: int,
    options: dict[str, Any],
) -> tuple[pa.Table, pa.Table]:
    """Clips and dropped rows of one part; read back where an earlier run made them from the same rows."""
    stem = f"{source.role}-{part:06d}"
    places = [folder / f"{stem}{end}" for end in (".clips.parquet", ".dropped.parquet")]
    made_of, mark = folder / f"{stem}.rows", _mark(rows, options)
    if all(each.exists() for each in places) and made_of.exists() and made_of.read_text() == mark:
        return pq.read_table(places[0]), pq.read_table(places[1])
    decoder = make_decoder()
    try:
        pieces = list(cut_part(part, rows.to_pylist(), decoder, MAX_SAMPLES_A_PIECE))
    finally:
        decoder.close()
    assert len(pieces) == 1, "a part is one piece"
    usable, dropped, pcm = _sorted_out(pieces[0], rows.to_pylist(), source, channel, min_samples, part)
    temporary = folder / f"{stem}.{os.getpid()}.tmp"  # processes of several machines may decode the same
    temporary.write_bytes(pcm.data)  # `tofile` does not say why it fails
    os.replace(temporary, folder / f"{stem}.pcm")
    for place, table in zip(places, (usable, dropped), strict=True):
        pq.write_table(table, temporary)
        os.replace(temporary, place)
    temporary.write_text(mark)
    os.replace(temporary, made_of)
    return usable, dropped


def _mark(rows: pa.Table, options: dict[str, Any]) -> str:
    """What plan rows say of their files, and the texts beside local ones: whether decoding again could give something else."""
    result = hashlib.sha256()
    for row in rows.drop_columns(["part", "planned_s", "duration_s"]).to_pylist():
        result.update(repr(sorted(row.items())).encode("utf-8", "surrogatepass"))
        for sidecar in row["sidecars"] or () if row["kind"] == "file" else ():
            text = Place(f"{stem_of(row['source'])}.{sidecar['kind']}", options)
            if text.is_local and text.exists():
                result.update(text.read())
    return result.hexdigest()


def _sorted_out(
    piece: pa.Table,
    rows: list[dict[str, Any]],
    source: Source,
    channel: int | None,
    min_samples: int,
    part: int,
) -> tuple[pa.Table, pa.Table, NDArray[np.int16]]:
    """What of a part is a clip and what is not, and the samples of the clips."""
    (endings,), (rejections,) = (piece.column(name).to_pylist() for name in ("endings", "rejections"))
    segments_by_recording: dict[str, list[Segment]] = {}
    for segment in segments_of(piece, ()):
        if channel in (None, segment.channel):
            segments_by_recording.setdefault(segment.recording_id, []).append(segment)
    ended = {ending["id"]: ending for ending in endings}
    rejected = {row["id"]: row for row in rejections}
    usable: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    chosen: list[NDArray[np.int16]] = []
    offset = 0
    for row in rows:
        named = {**{name: row[name] for name in ("id", "source", "member")}, "role": source.role}
        segments = segments_by_recording.get(row["id"], [])
        why = _why_not(rejected.get(row["id"]), ended.get(row["id"]), segments, source, min_samples)
        if why is not None:
            dropped.append({**named, "reason": why[0], "detail": why[1]})
            continue
        (segment,) = segments
        chosen.append(segment.pcm_T)
        usable.append(
            {
                **named,
                "start_s": seconds_from_samples(segment.start),
                "text": ended[row["id"]]["reference"],
                "language": row["language"],
                "weight": source.weight,
                "part": part,
                "offset": offset,
                "num_samples": segment.num_samples,
                "checksum": zlib.crc32(np.ascontiguousarray(chosen[-1]).data),
            }
        )
        offset += segment.num_samples
    pcm = np.concatenate(chosen) if chosen else np.zeros(0, np.int16)
    return pa.Table.from_pylist(usable, CLIP), pa.Table.from_pylist(dropped, DROPPED), pcm


def _why_not(
    rejection: dict[str, Any] | None,
    ending: dict[str, Any] | None,
    segments: Sequence[Segment],
    source: Source,
    min_samples: int,
) -> tuple[str, str] | None:
    """Reason and detail of a recording that is no clip."""
    if rejection is not None:
        return rejection["reason"], rejection["detail"]
    assert ending is not None, "a recording ends or is rejected"
    seconds = seconds_from_samples(ending["num_samples"])
    if len(segments) > 1:
        return "too_long", f"expected at most --max-clip-seconds, got {seconds:.1f} s; cut it, or raise the limit"
    if not segments or segments[0].num_samples < min_samples:
        return "too_short", f"expected at least --min-clip-seconds, got {seconds:.3f} s"
    if source.needs_text and ending["reference"] is None:
        return "no_text", "expected a text column in the manifest or a .txt beside the audio, got none"
    return None
