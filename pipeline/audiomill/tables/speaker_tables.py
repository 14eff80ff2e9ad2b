"""The tables of turns and speakers, made when all pieces of a part are there: who is who shows over a whole recording only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from audiomill import schema
from audiomill.audio.clock import MODEL_SAMPLE_RATE, samples_from_seconds, seconds_from_samples
from audiomill.config.jobs import JobConfig
from audiomill.config.speakers import CHANNEL, NONE
from audiomill.models.batch import Batch
from audiomill.schema import column
from audiomill.speakers.attribution import with_speakers
from audiomill.speakers.clustering import Rule
from audiomill.speakers.turns import Turn, Voice, arranged, channel_span, turns_of
from audiomill.storage.urls import without_credentials
from audiomill.tables.output import ModelRequest, Output, OutputRun

_OBSERVED = pa.schema(
    [
        ("recording_id", pa.string()),
        ("channel", pa.int32()),
        ("window", pa.int64()),
        ("number", pa.int32()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("probability", pa.float64()),
        ("alone_s", pa.float64()),
        ("vector", pa.list_(pa.float32())),
    ]
)
"""A local speaker of a segment, on its way to the writer. Times: samples on the source's clock."""

LONGEST_PAUSE_OF_A_CHANNEL = samples_from_seconds(1.0)
"""Between two words of one turn, where every channel is a speaker."""

VECTOR = "of the voice, of length 1; null: not kept (see --save-speaker-embeddings), or too little was heard"
TURNS = pa.schema(
    [
        column("recording_id", pa.string(), "joins recordings.id"),
        column("channel", pa.int32(), "source channel from 0; null: all channels mixed", nullable=True),
        column(
            "speaker", pa.string(), "of this recording: S1, S2 ... as they come; C0, C1 where channels are speakers"
        ),
        column("start_s", pa.float64(), "start in the source, half-open span", "s"),
        column("stop_s", pa.float64(), "end in the source", "s"),
        column("overlap_s", pa.float64(), "of the turn, in which another speaker is heard too", "s"),
        column(
            "confidence",
            pa.float32(),
            "that it is this speaker: probability of speech, times that of the voice being this speaker's; channels: 1",
            "0..1",
        ),
        column("vector", pa.list_(pa.float32()), VECTOR, nullable=True),
    ]
)
_SPEAKERS = pa.schema(
    [
        column("recording_id", pa.string(), "joins recordings.id"),
        column("speaker", pa.string(), "joins turns.speaker and segments.speaker"),
        column("num_turns", pa.int32(), "rows in the turns table"),
        column("speech_s", pa.float64(), "in which the speaker is heard", "s"),
        column("share", pa.float64(), "of the seconds of all speakers of the recording", "0..1"),
        column("model", pa.string(), "that made the vector; null: channels are speakers", nullable=True),
        column("vector", pa.list_(pa.float32()), VECTOR, nullable=True),
    ]
)


@dataclass(frozen=True)
class SpeakersWant:
    """How a run identifies speakers. `by_channel`: every channel is one; the rest: see `audiomill.config.speakers`."""

    by_channel: bool
    rule: Rule
    num_speakers: int | None
    max_speakers: int | None
    model: str | None
    keeps_voices: bool


def _resolve_run(job: JobConfig, asked: Sequence[ModelRequest]) -> OutputRun | None:
    """`options`: a `SpeakersWant`."""
    wanted = job.speakers
    if wanted.speakers == NONE:
        return None
    by_channel = wanted.speakers == CHANNEL
    want = SpeakersWant(
        by_channel=by_channel,
        rule=Rule(distance=wanted.clustering_threshold),
        num_speakers=wanted.num_speakers,
        max_speakers=wanted.max_speakers,
        model=None if by_channel else without_credentials(full_name(wanted.speaker_model)),
        keeps_voices=wanted.save_speaker_embeddings,
    )
    return OutputRun(_OBSERVED, options=want)


def full_name(model: str) -> str:
    """What every worker can find a model by."""
    return str(Path(model).absolute()) if Path(model).exists() else model


def _rows(batch: Batch, run: OutputRun) -> pa.Table:
    """Local speakers of segments, those that another model failed on among them; none where channels are speakers."""
    diarizer = next((number for number, spec in enumerate(batch.specs) if spec.requested.turns is not None), -1)
    rows = [
        {
            "recording_id": segment.recording_id,
            "channel": segment.channel,
            "window": segment.start + each.window,
            "number": each.number,
            "start": segment.start + each.span[0],
            "stop": segment.start + each.span[1],
            "probability": each.span[2],
            "alone_s": each.alone / MODEL_SAMPLE_RATE,
            "vector": None if each.vector_D is None else each.vector_D.tolist(),
        }
        for result in batch.results
        if diarizer in result.predictions and not (segment := result.segment).is_overlap_copy
        for each in result.predictions[diarizer].readout.local
    ]
    return pa.Table.from_pylist(rows, schema=run.schema)


def _finish(tables: dict[str, pa.Table], observed: pa.Table, run: OutputRun) -> dict[str, pa.Table]:
    """The tables of a part with `turns` and `speakers`, and the speakers of segments and words.

    Args:
        tables: recordings, segments and others.
        observed: local speakers of all pieces; empty where channels are speakers.
        run: how speakers are identified.
    """
    want: SpeakersWant = run.options
    segments = tables["segments"].to_pylist()
    names = tables["recordings"].column("id").to_pylist()
    result = _by_channel(segments) if want.by_channel else _by_voice(observed, want)
    turns, speakers = [], []
    for name in names:
        turns_here, voices = result.get(name, ([], []))
        turns += [_turn_row(name, turn, want) for turn in turns_here]
        speakers += list(_speaker_rows(name, turns_here, voices, want))
    with_speaker = with_speakers(segments, turns)
    return {
        **tables,
        "segments": pa.Table.from_pylist(with_speaker, schema=schema.SEGMENTS),
        "turns": pa.Table.from_pylist(turns, schema=TURNS),
        "speakers": pa.Table.from_pylist(speakers, schema=_SPEAKERS),
    }


def with_speakers_of_words(transcripts: pa.Table, tables: Mapping[str, pa.Table]) -> pa.Table:
    """The texts of a job's other models with the speakers of their words."""
    columns = ["id", "recording_id", "channel", "start_s", "stop_s"]
    segments = {row["id"]: row for row in tables["segments"].select(columns).to_pylist()}
    rows = transcripts.to_pylist()
    timed = [{**segments[row["segment_id"]], "words": row["words"]} for row in rows]
    plain = [name for name in TURNS.names if name != "vector"]
    with_speaker = with_speakers(timed, tables["turns"].select(plain).to_pylist())
    results = [row | {"words": each["words"]} for row, each in zip(rows, with_speaker, strict=True)]
    return pa.Table.from_pylist(results, schema=transcripts.schema)


_Found = dict[str, tuple[list[Turn], list[Voice]]]


def _by_voice(observed: pa.Table, want: SpeakersWant) -> _Found:
    of: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in observed.to_pylist():
        of[row["recording_id"]].append(row)
    return {name: turns_of(rows, want.rule, want.num_speakers, want.max_speakers) for name, rows in of.items()}


def _by_channel(segments: Sequence[Mapping[str, Any]]) -> _Found:
    """Turns are the words of a channel, or its segments where there are none."""
    of: defaultdict[str, list[Any]] = defaultdict(list)
    for segment in segments:
        spans = [segment] if segment["words"] is None else segment["words"]
        edges = [(samples_from_seconds(span["start_s"]), samples_from_seconds(span["stop_s"])) for span in spans]
        of[segment["recording_id"]] += [channel_span(segment["channel"], *edge) for edge in edges]
    return {name: arranged(spans, LONGEST_PAUSE_OF_A_CHANNEL) for name, spans in of.items()}


def _turn_row(recording_id: str, turn: Turn, want: SpeakersWant) -> dict[str, Any]:
    return {
        "recording_id": recording_id,
        "channel": turn.channel,
        "speaker": turn.speaker,
        "start_s": seconds_from_samples(turn.start),
        "stop_s": seconds_from_samples(turn.stop),
        "overlap_s": seconds_from_samples(turn.overlap),
        "confidence": turn.confidence,
        "vector": _stored_vector(turn.vector, want),
    }


def _speaker_rows(
    recording_id: str, turns: Sequence[Turn], voices: Sequence[Voice], want: SpeakersWant
) -> Iterator[dict[str, Any]]:
    total = sum(voice.seconds for voice in voices)
    for voice in voices:
        yield {
            "recording_id": recording_id,
            "speaker": voice.speaker,
            "num_turns": sum(turn.speaker == voice.speaker for turn in turns),
            "speech_s": voice.seconds,
            "share": round(voice.seconds / total, 4) if total else 0.0,
            "model": want.model,
            "vector": _stored_vector(voice.vector, want),
        }


def _stored_vector(vector: Any, want: SpeakersWant) -> list[float] | None:
    return vector.tolist() if want.keeps_voices and vector is not None else None


SPEAKERS = Output(
    name="diarization",
    documented={"turns": TURNS, "speakers": _SPEAKERS},
    resolve_run=_resolve_run,
    rows=_rows,
    finish=_finish,
)
"""Its tables are made when all pieces of a part are there: who is who shows over a whole recording only."""
