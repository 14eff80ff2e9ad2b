"""Numbers that more than one place needs."""

WINDOW_S = 30.0
"""Whisper's window, and the longest segment of other models, in seconds."""
SPEECH_SEGMENT_S = 14.0
"""Longest segment where Whisper writes what voice activity found. Measured by benchmarks/whisper_cpu.py on tiny.en and
base: no less accurate than 30 s, and faster."""
WINDOWS_BATCH_S = {"cpu": 1920.0, "cuda": 1920.0}
FRAMES_BATCH_S = {"cpu": 10.0, "cuda": 480.0}
"""Padded seconds a batch by device, of models that read windows and of models with frames (whose activations leave a
CPU's caches early). Measured."""
CONFORMER_BATCH_S = {"cpu": 20.0, "cuda": 480.0}
"""The same of encoders over log-mels with few frames a second; measured by benchmarks/encoders.py: 18.0 and 13.5 times real time
at 20 s, 16.2 and 10.5 at 10 s, no more from 40 s on."""
MOST_PART_S = 1800.0
LEAST_PART_S = {"cpu": 120.0, "cuda": 1800.0}
NUM_PARTS = 20
"""A corpus is cut into so many parts, or more, none longer than the most: a kill costs little. Shorter ones than the
least would leave batches less full."""
REPEATING_RATIO = 2.4
"""Texts that zlib makes so much shorter repeat themselves. Source: Whisper's `compression_ratio_threshold`."""
FIRST = 1
"""Number of the transcript that stands in `segments`, where several models of a job transcribe."""
SECOND_PASS_LEVEL = 5
"""`segments.fallback_level` of texts that the second model wrote."""

WALL_FACTOR = 10
"""Seconds by the wall clock that a decoder may wait, for each that it may compute."""
INT8, INT8_BF16, INT8_WEIGHT7 = "int8-w8a8-smooth", "int8-w8a8-smooth-bf16", "int8-w7a8-smooth"
"""Number formats that a run settles where int8 is computed, see `audiomill.models.precision`."""
