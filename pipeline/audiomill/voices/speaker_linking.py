"""Speaker linking: The same person across the recordings of an output: links of speakers to voices, names, and corrections by hand.

`voices/links.parquet` has a row for every speaker that was linked, `voices/voices.parquet` one for every voice. The tables of
the run are never changed by this, but where somebody is forgotten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audiomill.errors import InputError, UsageError
from audiomill.speakers.linking import LINK_DISTANCE, Link, RecordingSpeaker, Voices, halves, linked
from audiomill.stages.write import rewrite_part
from audiomill.storage import ledger
from audiomill.storage.fs import Place
from audiomill.storage.part_files import part_name, read_table, write_table
from audiomill.tables.forgotten import forgetting_settings, forgotten_of, is_forgotten, remember, without_forgotten
from audiomill.tables.voice_tables import LINKS, VOICES, VOICES_FOLDER


@dataclass
class _Index:
    """Everything that is known of an output's voices."""

    voices: Voices
    links: list[Link]
    names: dict[str, str]

    def members(self, voice: str) -> list[Link]:
        """Its speakers.

        Raises:
            UsageError: no such voice.
        """
        results = [link for link in self.links if link.voice == voice]
        if not results:
            raise UsageError(f"{voice}: no such voice; `audiomill link-speakers OUTPUT` lists them")
        return results


def read_index(output: Place) -> _Index:
    """What was found and said before."""
    place = output.join(VOICES_FOLDER, "voices.parquet")
    if not place.exists():
        return _Index(Voices({}), [], {})
    rows = read_table(place).to_pylist()
    if {row["settings"] for row in rows} != {forgetting_settings(output)}:  # made anew with other settings
        return _Index(Voices({}, max(row["last"] for row in rows)), [], {})
    links = [Link(**row) for row in read_table(output.join(VOICES_FOLDER, "links.parquet")).to_pylist()]
    last = max([row["last"] for row in rows], default=0)
    voices = Voices({row["voice"]: np.array(row["sum"]) for row in rows if row["voice"]}, last)
    return _Index(voices, links, {row["voice"]: row["name"] for row in rows if row["name"] is not None})


def write_index(output: Place, index: _Index) -> None:
    """Replaces both files."""
    header = {"last": index.voices.last, "settings": forgetting_settings(output)}
    rows = [
        {"voice": voice, "name": index.names.get(voice), "sum": each.tolist(), **header}
        for voice, each in index.voices.sums.items()
    ]
    # An empty id keeps the latest number where everybody was forgotten.
    rows = rows or [{"voice": "", "name": None, "sum": [], **header}]
    # Voices first: a link to a voice that is gone is nothing, a voice without links could not be named to be forgotten.
    write_table(output.join(VOICES_FOLDER, "voices.parquet"), pa.Table.from_pylist(rows, schema=VOICES), VOICES)
    write_table(output.join(VOICES_FOLDER, "links.parquet"), _links_table(index.links), LINKS)


def _links_table(links: Sequence[Link]) -> pa.Table:
    return pa.Table.from_pylist([link._asdict() for link in links], schema=LINKS)


def speakers_of(output: Place) -> list[RecordingSpeaker]:
    """Speakers with a vector, in the order of the plan.

    Raises:
        InputError: the output has none.
    """
    if not output.join("speakers").names():
        raise InputError(
            f"{output.url}: knows no speakers; expected the --output of a run with --speakers auto --save-speaker-embeddings"
        )
    heards: list[RecordingSpeaker] = []
    count = 0
    for _, rows in ledger.each_part(output, "speakers", ["recording_id", "speaker", "speech_s", "vector"]):
        count += rows.num_rows
        with_vector = rows.filter(pc.is_valid(rows.column("vector")))
        if with_vector.num_rows:
            flat = with_vector.column("vector").combine_chunks().flatten().to_numpy()
            columns = [with_vector.column(each).to_pylist() for each in ("recording_id", "speaker", "speech_s")]
            heards += map(RecordingSpeaker, *columns, flat.reshape(with_vector.num_rows, -1))
    if count and not heards and not forgotten_of(output):
        raise InputError(
            f"{output.url}: no vectors were kept; run it again with --save-speaker-embeddings, into another --output"
        )
    return heards


def updated(output: Place, distance: float = LINK_DISTANCE) -> _Index:
    """The index with every speaker that was not linked yet; what was linked stays."""
    index = read_index(output)
    known, forgotten = {(link.recording_id, link.speaker) for link in index.links}, forgotten_of(output)
    fresh = [
        new_speakers
        for new_speakers in speakers_of(output)
        if (new_speakers.recording_id, new_speakers.speaker) not in known
        and not is_forgotten(forgotten, new_speakers.recording_id, new_speakers.speaker)
    ]
    if fresh:
        index.links += linked(index.voices, fresh, distance)
        write_index(output, index)
    return index


def merge(output: Place, index: _Index, voices: Sequence[str]) -> None:
    """Makes all voices the first one, which keeps its name."""
    first, *others = dict.fromkeys(voices)
    index.members(first)
    for voice in others:
        index.members(voice)
        index.voices.join(first, voice)
        index.links = [link._replace(voice=first) if link.voice == voice else link for link in index.links]
        if (name := index.names.pop(voice, None)) is not None:
            index.names.setdefault(first, name)
    write_index(output, index)


def split(output: Place, index: _Index, voice: str) -> str:
    """Parts a voice in two by what is farthest apart in it; returns the id of the new one.

    Raises:
        UsageError: it has one speaker only.
    """
    members = {(link.recording_id, link.speaker) for link in index.members(voice)}
    mine = [speaker for speaker in speakers_of(output) if (speaker.recording_id, speaker.speaker) in members]
    if len(mine) < 2:
        raise UsageError(f"{voice}: has one speaker of one recording, which cannot be parted")
    is_second = halves(np.stack([speaker.vector_D for speaker in mine]))
    index.voices.drop(voice)
    new = index.voices.new_id()
    moved = set()
    for speaker, is_new in zip(mine, is_second.tolist(), strict=True):
        index.voices.add(new if is_new else voice, speaker)
        moved |= {(speaker.recording_id, speaker.speaker)} if is_new else set()
    index.links = [link._replace(voice=new) if link[:2] in moved else link for link in index.links]
    write_index(output, index)
    return new


def name(output: Place, index: _Index, voice: str, label: str) -> None:
    """Gives a name, which no other voice keeps."""
    index.members(voice)
    index.names = {each: other for each, other in index.names.items() if other != label} | {voice: label}
    write_index(output, index)


def forget(output: Place, index: _Index, voice: str, with_words: bool) -> int:
    """Takes a voice out: its id, its name, the vectors of its speakers, and their words if that is asked. Returns how many speakers
    that were.

    Raises:
        InputError: words shall go, and posteriors are kept from which they could be read again.
    """
    members = index.members(voice)
    if with_words and output.join("posteriors").names():
        raise InputError(
            f"{output.url}: keeps posteriors, from which the words could be written again: delete {output.url}/posteriors first"
        )
    forgotten = forgotten_of(output) | {(link.recording_id, link.speaker): with_words for link in members}
    remember(output, forgotten)  # first: a rerun that begins now must know
    _rewrite(output, {link.recording_id for link in members}, forgotten)
    index.voices.drop(voice)
    index.names.pop(voice, None)
    index.links = [link for link in index.links if link.voice != voice]
    write_index(output, index)
    shown = ["export"]  # which has the name
    if with_words:
        shown += ["report.html", "report", *(name for name in output.names() if name.startswith("scores."))]
    for each in shown:
        output.join(each).remove(recursive=True)
    return len(members)


def _rewrite(output: Place, recordings: set[str], forgotten: dict[tuple[str, str], bool]) -> None:
    """The part files that hold something of these recordings."""
    parts: defaultdict[int, set[str]] = defaultdict(set)
    for part, rows in ledger.each_part(output, "recordings", ["id"]):
        parts[part] |= recordings & set(rows.column("id").to_pylist())
    for part in sorted(part for part, mine in parts.items() if mine):
        file = part_name(part) + ".parquet"
        names = [
            each
            for each in ("recordings", "segments", "turns", "speakers", "transcripts", "embeddings")
            if output.join(each, file).exists()
        ]
        before = {name: read_table(output.join(name, file)) for name in names}
        after = without_forgotten(before, forgotten)
        rewrite_part(output, part, {each: after[each] for each in names if after[each] is not before[each]})


def voice_rows(output: Place, index: _Index) -> list[dict[str, Any]]:
    """For people: every voice with its name, recordings and seconds, who speaks most first."""
    seconds = {(speaker.recording_id, speaker.speaker): speaker.seconds for speaker in speakers_of(output)}
    members: defaultdict[str, list[Link]] = defaultdict(list)
    for link in index.links:
        members[link.voice].append(link)
    results = [
        {
            "voice": voice,
            "name": index.names.get(voice),
            "num_recordings": len({link.recording_id for link in members[voice]}),
            "speech_s": round(sum(seconds.get(link[:2], 0.0) for link in members[voice]), 3),
        }
        for voice in index.voices.ids
    ]
    return sorted(results, key=lambda row: (-row["speech_s"], row["voice"]))
