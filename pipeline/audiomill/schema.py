"""Arrow schema of the tables that every run writes: column, type, unit and meaning. docs/columns.md is made from it.

Schemas are explicit and the same for empty parts. `PLAN`, `RECORDINGS`, `SEGMENTS` and `REJECTIONS` are what users read;
`PIECE` and `RESULT` are the rows that travel between stages. Other tables: `audiomill.tables`.
"""

from __future__ import annotations

import pyarrow as pa


def column(name: str, kind: pa.DataType, meaning: str, unit: str = "", nullable: bool = False) -> pa.Field:
    """A field that says what it holds, and in what unit."""
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "meaning": meaning})


WORD = pa.struct(
    [
        ("word", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),
        ("probability", pa.float32()),
        ("confidence", pa.float32()),
        ("speaker", pa.string()),
    ]
)
CANDIDATE = pa.struct(
    [
        ("text", pa.string()),
        ("acoustic", pa.float32()),
        ("lm", pa.float32()),
        ("num_words", pa.int32()),
        ("hotwords", pa.int32()),
        ("rescored", pa.float32()),
        ("score", pa.float32()),
    ]
)
PHRASE = pa.struct([("text", pa.string()), ("start_s", pa.float64()), ("stop_s", pa.float64())])

SIDECAR = pa.struct([("kind", pa.string()), ("position", pa.int64()), ("size", pa.int64())])

PLAN = pa.schema(
    [
        column("part", pa.int32(), "unit of work: one output file per table"),
        column("id", pa.string(), "recording id, derived from source, member and span; stable across runs"),
        column("source", pa.string(), "file or shard that holds the recording: absolute path or URL"),
        column("member", pa.string(), "name inside the shard; empty for a plain file"),
        column("kind", pa.string(), "file, tar, tarz (compressed tar) or parquet"),
        column("position", pa.int64(), "tar: byte offset of the member; parquet: row group; else 0"),
        column("size", pa.int64(), "bytes of encoded audio; parquet: row in the row group", nullable=True),
        column("version", pa.string(), "ETag or time of the file when it was listed; null: not told", nullable=True),
        column("duration_s", pa.float64(), "duration by header or manifest; null where not cheap to know", "s", True),
        column("planned_s", pa.float64(), "duration used to balance parts (header, manifest or estimate by size)", "s"),
        column(
            "span_start_s", pa.float64(), "start of the selected span in the source; null: whole recording", "s", True
        ),
        column("span_duration_s", pa.float64(), "length of the selected span; null: to the end", "s", True),
        column("track", pa.int32(), "audio track of a container, from 1; null: as --track says", nullable=True),
        column(
            "channel", pa.int32(), "channel that a manifest row means, from 0; null: as --channels says", nullable=True
        ),
        column("reference", pa.string(), "reference text from manifest or shard", nullable=True),
        column("language", pa.string(), "language given by the manifest", nullable=True),
        column("metadata", pa.string(), "other manifest columns as JSON", nullable=True),
        column(
            "sidecars",
            pa.list_(SIDECAR),
            "texts of the same stem beside the audio; position: offset in a tar",
            nullable=True,
        ),
        column("reason", pa.string(), "why the entry is rejected before reading; null: it is read", nullable=True),
        column("detail", pa.string(), "expected against found, for `reason`", nullable=True),
    ]
)

RECORDINGS = pa.schema(
    [
        column("id", pa.string(), "recording id, derived from source, member and span; stable across runs"),
        column("source", pa.string(), "file or shard: absolute path or URL"),
        column("member", pa.string(), "name inside the shard; empty for a plain file"),
        column("span_start_s", pa.float64(), "where the recording starts in its source (manifest offset)", "s"),
        column("duration_s", pa.float64(), "speech_s + non_speech_s + failed_s", "s"),
        column("sample_rate", pa.int32(), "of the source", "Hz"),
        column("num_channels", pa.int32(), "of the source"),
        column("track", pa.int32(), "audio track, from 1, of a container with several; else null", nullable=True),
        column(
            "text",
            pa.string(),
            "texts of the segments in time order, joined by blanks; null: none was wanted",
            nullable=True,
        ),
        column("language", pa.string(), "language with most speech; null without segments", nullable=True),
        column("num_segments", pa.int32(), "rows in the segments table"),
        column("speech_s", pa.float64(), "inside segments (channels united)", "s"),
        column("non_speech_s", pa.float64(), "decoded and outside every segment", "s"),
        column("failed_s", pa.float64(), "announced but not decodable, or lost by the model", "s"),
        column(
            "error", pa.string(), "what is missing and why (a truncated file); null when all was used", nullable=True
        ),
        column(
            "notes",
            pa.string(),
            "what was done with unusual sound (channels that cancel); null: nothing",
            nullable=True,
        ),
        column("reference", pa.string(), "reference text from manifest or shard", nullable=True),
        column("metadata", pa.string(), "other manifest columns or the shard's .json, as JSON", nullable=True),
        column(
            "checksum",
            pa.int64(),
            "CRC-32 of the samples that the model is given (16 kHz, 16 bits): the same sound, the same number",
        ),
        column("envelope", pa.binary(), "waveform's outline: a byte a stretch, 255 x the square root of its peak"),
        column("envelope_s", pa.float64(), "length of a stretch: 0.1, more where that gave over 1,000", "s"),
    ]
)

SEGMENTS = pa.schema(
    [
        column("id", pa.string(), "recording id, channel and start sample"),
        column("recording_id", pa.string(), "joins recordings.id"),
        column("channel", pa.int32(), "source channel from 0; null: all channels mixed", nullable=True),
        column("start_s", pa.float64(), "start in the source, half-open span", "s"),
        column("stop_s", pa.float64(), "end in the source", "s"),
        column(
            "speaker",
            pa.string(),
            "who says most of it, joins turns.speaker; null: not asked for, or nobody is heard",
            nullable=True,
        ),
        column("text", pa.string(), "transcript; null: none was wanted", nullable=True),
        column("language", pa.string(), "given or detected; null: the model has none", nullable=True),
        column("language_probability", pa.float32(), "of the detected language; null: given", "0..1", True),
        column("avg_logprob", pa.float32(), "mean natural-log probability of the chosen tokens", "nat", True),
        column("no_speech_prob", pa.float32(), "Whisper's no-speech token at the first step", "0..1", True),
        column(
            "compression_ratio", pa.float32(), "bytes of text / bytes zlib makes of it; above 2.4: repetition", "", True
        ),
        column(
            "confidence",
            pa.float32(),
            "expected share of right words (Whisper: calibrated; CTC: of the whole text, a token)",
            "0..1",
            True,
        ),
        column("words", pa.list_(WORD), "words with times in the source; null: not asked for", "s", True),
        column("phrases", pa.list_(PHRASE), "spans between Whisper's timestamp tokens; null: no timestamps", "s", True),
        column(
            "fallback_level",
            pa.int8(),
            "which decoding gave the text; 0: the first pass, 1: longer context, 5: second-pass model; 2 to 4 are of older outputs",
            nullable=True,
        ),
        column(
            "failed_checks",
            pa.list_(pa.string()),
            "quality checks that the text fails at every fallback level; silence: a text was invented and dropped",
            nullable=True,
        ),
        column(
            "first_pass_text",
            pa.string(),
            "first-pass text, where another's text was kept or silence was emptied; else null",
            nullable=True,
        ),
        column(
            "self_consistency",
            pa.float32(),
            "share of words that stay when the segment is decoded again after a small change of its sound",
            "0..1",
            True,
        ),
        column("nbest", pa.list_(CANDIDATE), "best texts first, with their scores; null: no beam search", "nat", True),
        column("fingerprint", pa.int64(), "of the sound: a few bits differ for the same in another encoding"),
    ]
)

REJECTIONS = pa.schema(
    [
        column("id", pa.string(), "recording id, derived from source, member and span; stable across runs"),
        column("source", pa.string(), "file or shard: absolute path or URL"),
        column("member", pa.string(), "name inside the shard; empty for a plain file"),
        column("stage", pa.string(), "plan, read, decode or infer"),
        column("reason", pa.string(), "one of the reasons listed in pipeline/audiomill/schema.py"),
        column("detail", pa.string(), "expected against found"),
    ]
)

TABLES = {"recordings": RECORDINGS, "segments": SEGMENTS, "rejections": REJECTIONS}
"""Tables of every run by folder name."""

REASONS = {
    "bad_manifest_row": "a manifest row names no audio or holds a bad value",
    "path_outside_root": "a manifest path leaves its folder (see --audio-root)",
    "unreadable_shard": "a tar or Parquet shard is broken from here on",
    "not_found": "the file, object or member does not exist",
    "unreadable": "permission or I/O error while reading",
    "empty": "zero bytes",
    "not_audio": "neither libsndfile nor FFmpeg recognises the bytes as audio",
    "no_audio_stream": "a container without an audio stream",
    "decode_failed": "recognised, but nothing could be decoded",
    "no_samples": "a valid header with no audio behind it",
    "invalid_header": "sample rate, channels or duration outside what audio can be",
    "nan_samples": "samples that are not finite numbers",
    "invalid_array": "a value from Python that is no audio: its type, shape, range or rate",
    "too_short": "shorter than --min-recording-seconds",
    "too_long": "longer than --max-recording-hours",
    "offset_out_of_range": "the manifest's span starts after the end of the audio",
    "time_limit": "decoding made no progress for --decode-timeout seconds",
    "memory_limit": "decoding needed more than --decode-memory-gb",
    "decoder_crashed": "the decoder brought its process down",
    "worker_crashed": "the recording brought model workers down repeatedly",
    "model_timeout": "the model gave no sign of life for --model-timeout seconds, also on this recording alone",
    "model_failed": "the model raised an error on this recording alone",
}
"""Every value of `rejections.reason` with its meaning."""

ENDING = pa.struct(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("member", pa.string()),
        ("origin", pa.int64()),
        ("num_samples", pa.int64()),
        ("speech_samples", pa.int64()),
        ("failed_samples", pa.int64()),
        ("sample_rate", pa.int32()),
        ("num_channels", pa.int32()),
        ("track", pa.int32()),
        ("error", pa.string()),
        ("reference", pa.string()),
        ("metadata", pa.string()),
        ("envelope", pa.binary()),
        ("envelope_s", pa.float64()),
        ("notes", pa.string()),
        ("checksum", pa.int64()),
    ]
)
"""What is known when the last sample of a recording was read. Counts at the model's rate."""

PIECE_SEGMENT = pa.struct(
    [
        ("recording_id", pa.string()),
        ("channel", pa.int32()),
        ("start", pa.int64()),
        ("num_samples", pa.int64()),
        ("left", pa.int32()),
        ("right", pa.int32()),
        ("is_overlap_copy", pa.bool_()),
        ("language", pa.string()),
        ("speech", pa.int64()),
        ("wave_samples", pa.list_(pa.int64())),
        ("vad_mask", pa.binary()),
    ]
)
"""A segment inside a piece, see `audiomill.audio.cutting.segment.Segment`. `num_samples`: in the PCM, with the context; `wave_samples`: in
each form."""

PIECE = pa.schema(
    [
        ("part", pa.int32()),
        ("piece", pa.int32()),
        ("last", pa.bool_()),
        ("pcm", pa.large_binary()),
        ("waves", pa.list_(pa.large_binary())),
        ("segments", pa.list_(PIECE_SEGMENT)),
        ("endings", pa.list_(ENDING)),
        ("rejections", pa.list_(pa.struct(list(REJECTIONS)))),
        ("planned", pa.list_(pa.string())),
        ("seconds", pa.map_(pa.string(), pa.float64())),
    ]
)
"""One row: decoded speech of (a bounded piece of) a part. `pcm`: all segments end to end, int16 at 16 kHz; `waves`: the same as
float32 in each form of the run, see `audiomill.audio.forms`; `planned`: in the last piece, ids of all recordings of the part."""

RESULT = pa.schema(
    [
        ("part", pa.int32()),
        ("piece", pa.int32()),
        ("last", pa.bool_()),
        ("segments", pa.list_(pa.struct(list(SEGMENTS)))),
        ("lost", pa.map_(pa.string(), pa.int64())),
        ("failures", pa.map_(pa.string(), pa.string())),
        ("endings", pa.list_(ENDING)),
        ("rejections", pa.list_(pa.struct(list(REJECTIONS)))),
        ("planned", pa.list_(pa.string())),
        ("seconds", pa.map_(pa.string(), pa.float64())),
        ("began", pa.float64()),
        ("verification", pa.string()),
    ]
)
"""One row: what the models made of a piece; `audiomill.tables.assemble.pack` adds a column for each output. `lost`:
samples per recording id that a model failed on, `failures`: with what error; `began`: when the model was given the piece, seconds since 1970;
`verification`: JSON of `audiomill.models.batch.Difference`, null where none was done."""
