"""Arrow schema of every table: column, type, unit and meaning. The README's column tables are made from it.

Schemas are explicit and the same for empty parts. `PLAN`, `RECORDINGS`, `SEGMENTS`, `REJECTIONS`, `EMBEDDINGS`
and `CODES` are what users read; `PIECE` and `RESULT` are the rows that travel between stages.
"""

from __future__ import annotations

import pyarrow as pa


def _column(name: str, kind: pa.DataType, meaning: str, unit: str = "", nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "meaning": meaning})


WORD = pa.struct(
    [
        ("word", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),
        ("probability", pa.float32()),
        ("confidence", pa.float32()),
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
        _column("part", pa.int32(), "unit of work: one output file per table"),
        _column("id", pa.string(), "recording id, derived from source, member and span; stable across runs"),
        _column("source", pa.string(), "file or shard that holds the recording: absolute path or URL"),
        _column("member", pa.string(), "name inside the shard; empty for a plain file"),
        _column("kind", pa.string(), "file, tar, tarz (compressed tar) or parquet"),
        _column("position", pa.int64(), "tar: byte offset of the member; parquet: row group; else 0"),
        _column("size", pa.int64(), "bytes of encoded audio; parquet: row in the row group", nullable=True),
        _column("duration_s", pa.float64(), "duration by header or manifest; null where not cheap to know", "s", True),
        _column(
            "planned_s", pa.float64(), "duration used to balance parts (header, manifest or estimate by size)", "s"
        ),
        _column(
            "span_start_s", pa.float64(), "start of the selected span in the source; null: whole recording", "s", True
        ),
        _column("span_duration_s", pa.float64(), "length of the selected span; null: to the end", "s", True),
        _column("reference", pa.string(), "reference text from manifest or shard", nullable=True),
        _column("language", pa.string(), "language given by the manifest", nullable=True),
        _column("metadata", pa.string(), "other manifest columns as JSON", nullable=True),
        _column(
            "sidecars",
            pa.list_(SIDECAR),
            "texts of the same stem beside the audio; position: offset in a tar",
            nullable=True,
        ),
        _column("reason", pa.string(), "why the entry is rejected before reading; null: it is read", nullable=True),
        _column("detail", pa.string(), "expected against found, for `reason`", nullable=True),
    ]
)

RECORDINGS = pa.schema(
    [
        _column("id", pa.string(), "recording id, derived from source, member and span; stable across runs"),
        _column("source", pa.string(), "file or shard: absolute path or URL"),
        _column("member", pa.string(), "name inside the shard; empty for a plain file"),
        _column("span_start_s", pa.float64(), "where the recording starts in its source (manifest offset)", "s"),
        _column("duration_s", pa.float64(), "speech_s + non_speech_s + failed_s", "s"),
        _column("sample_rate", pa.int32(), "of the source", "Hz"),
        _column("num_channels", pa.int32(), "of the source"),
        _column(
            "text",
            pa.string(),
            "texts of the segments in time order, joined by blanks; null: none was wanted",
            nullable=True,
        ),
        _column("language", pa.string(), "language with most speech; null without segments", nullable=True),
        _column("num_segments", pa.int32(), "rows in the segments table"),
        _column("speech_s", pa.float64(), "inside segments (channels united)", "s"),
        _column("non_speech_s", pa.float64(), "decoded and outside every segment", "s"),
        _column("failed_s", pa.float64(), "announced but not decodable, or lost by the model", "s"),
        _column(
            "error", pa.string(), "what is missing and why (a truncated file); null when all was used", nullable=True
        ),
        _column("reference", pa.string(), "reference text from manifest or shard", nullable=True),
        _column("metadata", pa.string(), "other manifest columns or the shard's .json, as JSON", nullable=True),
        _column("envelope", pa.binary(), "waveform's outline: a byte a stretch, 255 x the square root of its peak"),
        _column("envelope_s", pa.float64(), "length of a stretch: 0.1, more where that gave over 1,000", "s"),
    ]
)

SEGMENTS = pa.schema(
    [
        _column("id", pa.string(), "recording id, channel and start sample"),
        _column("recording_id", pa.string(), "joins recordings.id"),
        _column("channel", pa.int32(), "source channel from 0; null: all channels mixed", nullable=True),
        _column("start_s", pa.float64(), "start in the source, half-open span", "s"),
        _column("stop_s", pa.float64(), "end in the source", "s"),
        _column("text", pa.string(), "transcript; null: none was wanted", nullable=True),
        _column("language", pa.string(), "given or detected; null: the model has none", nullable=True),
        _column("language_probability", pa.float32(), "of the detected language; null: given", "0..1", True),
        _column("avg_logprob", pa.float32(), "mean natural-log probability of the chosen tokens", "nat", True),
        _column("no_speech_prob", pa.float32(), "Whisper's no-speech token at the first step", "0..1", True),
        _column(
            "compression_ratio", pa.float32(), "bytes of text / bytes zlib makes of it; above 2.4: repetition", "", True
        ),
        _column(
            "confidence",
            pa.float32(),
            "expected share of right words (Whisper: calibrated; CTC: of the whole text, a token)",
            "0..1",
            True,
        ),
        _column("words", pa.list_(WORD), "words with times in the source; null: not asked for", "s", True),
        _column(
            "phrases", pa.list_(PHRASE), "spans between Whisper's timestamp tokens; null: no timestamps", "s", True
        ),
        _column(
            "rung",
            pa.int8(),
            "attempt that gave the text; 0: greedy, 1: full window, 2 and 3: sampled at 0.4 and 0.8, 4: beam search, 5: the second model",
            nullable=True,
        ),
        _column(
            "gates",
            pa.list_(pa.string()),
            "checks that the text fails on every rung: low confidence; silence: a text was invented and dropped",
            nullable=True,
        ),
        _column(
            "first_text",
            pa.string(),
            "what the first attempt wrote, where another's text was kept or silence was emptied; else null",
            nullable=True,
        ),
        _column(
            "agreement", pa.float32(), "share of words that stay when the segment is heard again, changed", "0..1", True
        ),
        _column("nbest", pa.list_(CANDIDATE), "best texts first, with their scores; null: no beam search", "nat", True),
        _column("fingerprint", pa.int64(), "of the sound: a few bits differ for the same in another encoding"),
    ]
)

REJECTIONS = pa.schema(
    [
        _column("id", pa.string(), "recording id, derived from source, member and span; stable across runs"),
        _column("source", pa.string(), "file or shard: absolute path or URL"),
        _column("member", pa.string(), "name inside the shard; empty for a plain file"),
        _column("stage", pa.string(), "plan, read, decode or infer"),
        _column("reason", pa.string(), "one of the reasons listed in pipeline/schema.py"),
        _column("detail", pa.string(), "expected against found"),
    ]
)

TABLES = {"recordings": RECORDINGS, "segments": SEGMENTS, "rejections": REJECTIONS}
"""Tables of every run by folder name."""

_FRAMES_OF = [
    _column("segment_id", pa.string(), "joins segments.id"),
    _column("recording_id", pa.string(), "joins recordings.id"),
    _column("model", pa.string(), "checkpoint as it was named"),
]
_FRAME_CLOCK = [
    _column("frame_rate_hz", pa.float64(), "frames a second", "Hz"),
    _column(
        "first_frame_s", pa.float64(), "frame i stands for the time from first_frame_s + i / frame_rate_hz on", "s"
    ),
]

CODES = pa.schema(
    [
        *_FRAMES_OF,
        _column("quantizer", pa.string(), "what made the codes: quantizer (the checkpoint's own) or a codebook's name"),
        _column("codebook", pa.int16(), "from 0; a row for each codebook of the quantizer"),
        _column("num_entries", pa.int32(), "entries of the codebook: codes are below it"),
        *_FRAME_CLOCK,
        _column("codes", pa.list_(pa.uint16()), "one a frame; runs joined with --deduplicate"),
        _column("durations", pa.list_(pa.uint16()), "frames each code lasts; null unless --deduplicate", nullable=True),
    ]
)


POSTERIORS = pa.schema(
    [
        *_FRAMES_OF,
        _column("num_frames", pa.int32(), "frames in the row"),
        *_FRAME_CLOCK,
        _column("is_continued", pa.bool_(), "frames go on from the row before: both are read as one"),
        _column("num_tokens", pa.int16(), "candidates a frame: the blank first, then from the most probable on"),
        _column("tokens", pa.binary(), "uint16, frame by frame"),
        _column("levels", pa.binary(), "uint8, frame by frame: log-probability is -20 (level / 255)^2"),
    ]
)


def embeddings(values: pa.DataType) -> pa.Schema:
    """The embeddings table; `values` is a vector, or a list of vectors where frames are kept."""
    return pa.schema(
        [
            *_FRAMES_OF,
            _column("layer", pa.int16(), "hidden state: 0 is the input of the first layer, 9 the output of the ninth"),
            _column("pool", pa.string(), "none, mean, mean+std or max"),
            _column("num_frames", pa.int32(), "vectors in the row, or frames that were pooled"),
            *_FRAME_CLOCK,
            _column("values", values, "the vector, or a list of vectors, one a frame"),
            _column("scale", pa.list_(pa.float32()), "int8: values times this, one a vector; else null", nullable=True),
        ]
    )


EMBEDDINGS = embeddings(pa.list_(pa.list_(pa.float16(), 768)))
DOCUMENTED = {**TABLES, "embeddings": EMBEDDINGS, "codes": CODES, "posteriors": POSTERIORS}
"""Every table that a run may write, with the usual width of a vector."""

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
    "absurd_header": "sample rate, channels or duration outside what audio can be",
    "nan_samples": "samples that are not finite numbers",
    "too_short": "shorter than --min-recording-seconds",
    "too_long": "longer than --max-recording-hours",
    "span_outside": "the manifest's span starts after the end of the audio",
    "time_limit": "decoding made no progress for --decode-timeout seconds",
    "memory_limit": "decoding needed more than --decode-memory-gb",
    "decoder_crashed": "the decoder brought its process down",
    "worker_crashed": "the recording brought model workers down repeatedly",
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
        ("error", pa.string()),
        ("reference", pa.string()),
        ("metadata", pa.string()),
        ("envelope", pa.binary()),
        ("envelope_s", pa.float64()),
    ]
)
"""What is known when the last sample of a recording was read. Counts at the model's rate."""

CUT = pa.struct(
    [
        ("recording_id", pa.string()),
        ("channel", pa.int32()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("left", pa.int32()),
        ("right", pa.int32()),
        ("halo", pa.bool_()),
        ("language", pa.string()),
        ("speech", pa.int64()),
    ]
)
"""One segment inside a piece. `start`, `stop`: source time in samples; `left`, `right`: samples of context
around it in the PCM; `halo`: computed only so that its neighbours' words are whole, gives no row."""

PIECE = pa.schema(
    [
        ("part", pa.int32()),
        ("piece", pa.int32()),
        ("last", pa.bool_()),
        ("pcm", pa.large_binary()),
        ("cuts", pa.list_(CUT)),
        ("endings", pa.list_(ENDING)),
        ("rejections", pa.list_(pa.struct(list(REJECTIONS)))),
        ("seconds", pa.map_(pa.string(), pa.float64())),
    ]
)
"""One row: decoded speech of (a bounded piece of) a part. `pcm`: all cuts end to end, int16 at 16 kHz."""

RESULT = pa.schema(
    [
        ("part", pa.int32()),
        ("piece", pa.int32()),
        ("last", pa.bool_()),
        ("segments", pa.list_(pa.struct(list(SEGMENTS)))),
        ("lost", pa.map_(pa.string(), pa.int64())),
        ("endings", pa.list_(ENDING)),
        ("rejections", pa.list_(pa.struct(list(REJECTIONS)))),
        ("seconds", pa.map_(pa.string(), pa.float64())),
        ("began", pa.float64()),
        ("canary", pa.string()),
    ]
)
"""One row: what the models made of a piece; `pipeline/tables/result.py` adds a column for each table of frames. `lost`:
samples per recording id that a model failed on; `began`: when the model was given the piece, seconds since 1970;
`canary`: JSON of `audiomill.stages.canary.Difference`, null where none was done."""
